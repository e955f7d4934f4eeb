"""Parses a page as it is without JavaScript: its texts, links and forms, and its accessibility."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

from httpx import Response

_VOID = {"meta", "link", "input", "br", "wbr"}
_BLOCKS = {"td", "th", "dt", "dd", "li", "p", "h1", "h2", "caption", "summary"}


@dataclass
class Form:
    action: str
    method: str
    fields: dict[str, str] = field(default_factory=dict)


class Page(HTMLParser):
    """`texts`: the texts of elements by tag name. `mistakes`: accessibility problems."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self.status = response.status_code
        self.links: list[str] = []
        self.forms: list[Form] = []
        self.ids: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.attributes: list[tuple[str, dict[str, str]]] = []
        self._open: list[tuple[str, int]] = []
        self.feed(response.text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.attributes.append((tag, given))
        if "id" in given:
            self.ids.append(given["id"])
        if "href" in given:
            self.links.append(given["href"])
        if tag == "form":
            self.forms.append(Form(given.get("action", ""), given.get("method", "get")))
        if tag == "button" and "formaction" in given:
            self.forms.append(Form(given["formaction"], "post"))
        if tag == "input" and self.forms:
            self.forms[-1].fields[given.get("name", "")] = given.get("value", "")
        if tag not in _VOID:
            self.texts.setdefault(tag, []).append("")
            self._open.append((tag, len(self.texts[tag]) - 1))

    def handle_endtag(self, tag: str) -> None:
        if tag not in _VOID:
            assert self._open, f"</{tag}> closes nothing"
            assert self._open[-1][0] == tag, f"</{tag}> closes <{self._open[-1][0]}>"
            self._open.pop()
            if tag in _BLOCKS:
                self.handle_data(" ")

    def handle_data(self, data: str) -> None:
        for tag, at in self._open:
            self.texts[tag][at] += data

    def close(self) -> None:
        super().close()
        assert self._open == [], f"<{self._open[-1][0]}> is never closed"

    @property
    def main(self) -> str:
        return " ".join(self.texts["main"][0].split())

    def all(self, tag: str) -> list[str]:
        """The text of each element with this tag, on one line."""
        return [" ".join(text.split()) for text in self.texts.get(tag, [])]

    def rows(self) -> list[str]:
        return [row for row in self.all("tr") if row]

    def form(self, ends: str) -> Form:
        [found] = [form for form in self.forms if form.action.endswith(ends)]
        return found

    @property
    def mistakes(self) -> list[str]:
        found = [f"id {each} stands twice" for each in set(self.ids) if self.ids.count(each) > 1]
        if len(self.all("h1")) != 1:
            found.append(f"{len(self.all('h1'))} h1")
        if len(self.texts.get("table", [])) != len(self.texts.get("caption", [])):
            found.append("a table without a caption")
        labels = {given.get("for") for tag, given in self.attributes if tag == "label"}
        for tag, given in self.attributes:
            if tag == "th" and "scope" not in given:
                found.append("a th without scope")
            if tag in ("progress", "meter") and not given.get("aria-label"):
                found.append(f"a {tag} without a name")
            if tag == "input" and given.get("type", "text") not in ("hidden", "radio", "checkbox"):
                found += [] if given.get("id") in labels else [f"input {given} without a label"]
            for name in ("aria-labelledby", "aria-describedby"):
                if name in given and given[name] not in self.ids:
                    found.append(f"{name} names {given[name]}, which is not there")
            if any(name.startswith("on") or name == "style" for name in given):
                found.append(f"{tag} has what the content security policy forbids")
        found += [
            f"{tag} says nothing"
            for tag in ("button", "a", "h2", "summary")
            for text in self.all(tag)
            if not text
        ]
        return found
