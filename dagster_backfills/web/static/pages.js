// Pages are whole without this. With it they stay as they are on the server, and files go in pieces.
"use strict";

// --- A page that looks again -------------------------------------------------------------------------------------
// What may change is marked: `data-live` is exchanged whenever it differs, `data-once` as long as it is empty.
// `data-every` says how many milliseconds until the next look; where nobody says it, nothing is to come.

let timer = 0;
let looking = false;
let again = false;
let missed = 0;
let events = null;
let followed = false;

function exchange(part, next) {
  if ("once" in part.dataset && part.innerHTML.trim()) return;
  for (const open of part.querySelectorAll("details[open][id]")) {
    const same = next.ownerDocument.getElementById(open.id);
    if (same) same.open = true;
  }
  if ("every" in next.dataset) part.dataset.every = next.dataset.every;
  else delete part.dataset.every;
  if (part.innerHTML === next.innerHTML) return;
  const focused = part.contains(document.activeElement) ? document.activeElement.id : null;
  part.innerHTML = next.innerHTML;
  if (focused !== null) {
    (document.getElementById(focused) || document.getElementById("main")).focus({ preventScroll: true });
  }
}

async function look() {
  clearTimeout(timer);
  if (document.hidden) return;
  if (looking) {
    again = true;
    return;
  }
  looking = true;
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (!answer.ok) throw new Error(answer.status);
    const next = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of document.querySelectorAll("[data-live], [data-once]")) {
      const same = next.getElementById(part.id);
      if (same) exchange(part, same);
    }
    missed = 0;
  } catch {
    missed += 1;
  }
  tellWhetherItAnswers();
  looking = false;
  plan();
}

function plan() {
  const waits = [...document.querySelectorAll("[data-every]")].map((part) => Number(part.dataset.every));
  if (!waits.length) {
    events?.close();
    return;
  }
  // Whoever is told of changes looks by himself only to be sure.
  const wait = again ? 500 : followed ? 15000 : Math.min(...waits) * Math.min(missed + 1, 10);
  again = false;
  timer = setTimeout(look, wait);
}

function tellWhetherItAnswers() {
  const there = document.getElementById("no-answer");
  if (missed < 3) there?.remove();
  else if (!there) {
    const said = document.createElement("p");
    said.id = "no-answer";
    said.className = "notice bad";
    said.setAttribute("role", "status");
    said.textContent = "The server does not answer. What stands here may be out of date.";
    document.querySelector("h1").after(said);
  }
}

// Told of changes of jobs. Only the tab that is seen listens: a browser has few connections for all of them.
function follow() {
  const part = document.querySelector("[data-follow][data-every]");
  if (!part || document.hidden) return;
  const one = part.dataset.follow;
  events = new EventSource(`/api/jobs/events${one ? `?id=${encodeURIComponent(one)}` : ""}`);
  const soon = () => {
    if (looking) again = true;
    else {
      clearTimeout(timer);
      timer = setTimeout(look, 250);
    }
  };
  for (const name of ["job", "reload", "end"]) events.addEventListener(name, soon);
  events.onopen = () => { followed = true; };
  events.onerror = () => {
    followed = false;
    soon();
  };
}

document.addEventListener("visibilitychange", () => {
  events?.close();
  followed = false;
  if (document.hidden || !document.querySelector("[data-every]")) return;
  follow();
  look();
});
// Back to a page that the browser kept: it is as old as that.
addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
follow();
plan();

// --- Files, in pieces --------------------------------------------------------------------------------------------
// A line that is cut costs one piece: where the file stands is asked, and it goes on from there. Also after the page
// was closed, if the same file is chosen again.

const PIECE = 1024 * 1024;
const UPLOADS = "/import/backfill/uploads";

class Refused extends Error {}

async function ask(address, options) {
  const answer = await fetch(address, options);
  if (answer.ok) return answer;
  const body = await answer.json().catch(() => ({}));
  const said = [body.error || `The server answered ${answer.status}.`, body.hint].filter(Boolean).join(" ");
  if (answer.status >= 500 || [404, 405, 408, 409, 429].includes(answer.status)) throw new Error(said);
  throw new Refused(said);
}

async function begin(file, remembered) {
  const known = localStorage.getItem(remembered);
  if (known) {
    const there = await fetch(`${UPLOADS}/${known}`, { method: "HEAD" });
    if (there.ok) return [known, Number(there.headers.get("Upload-Offset"))];
  }
  const answer = await ask(UPLOADS, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ fileName: file.name, size: file.size }),
  });
  const upload = (await answer.json()).uploadId;
  localStorage.setItem(remembered, upload);
  return [upload, 0];
}

async function send(file, tell) {
  const remembered = `upload ${file.name} ${file.size} ${file.lastModified}`;
  let [upload, at] = await begin(file, remembered);
  for (let tries = 0; at < file.size;) {
    tell(at);
    try {
      const end = Math.min(at + PIECE, file.size);
      const range = { "Content-Range": `bytes ${at}-${end - 1}/${file.size}` };
      const answer = await ask(`${UPLOADS}/${upload}`, { method: "PUT", headers: range, body: file.slice(at, end) });
      at = (await answer.json()).offset;
      tries = 0;
    } catch (error) {
      if (error instanceof Refused) {
        localStorage.removeItem(remembered);
        throw error;
      }
      tries += 1;
      tell(at, "The line was cut. It goes on by itself.");
      await new Promise((resolve) => setTimeout(resolve, Math.min(30000, 500 * 2 ** tries)));
      const there = await fetch(`${UPLOADS}/${upload}`, { method: "HEAD" }).catch(() => null);
      if (there?.ok) at = Number(there.headers.get("Upload-Offset"));
      if (there?.status === 404) {
        localStorage.removeItem(remembered);
        throw new Refused("What was sent is gone. Send the file again.");
      }
    }
  }
  localStorage.removeItem(remembered);
  return upload;
}

async function submit(form) {
  const file = form.querySelector("input[type=file]").files[0];
  const sending = form.querySelector(".sending");
  const said = sending.querySelector("[role=status]");
  const button = form.querySelector("button");
  const tell = (at, trouble) => {
    const percent = Math.floor((100 * at) / file.size);
    sending.querySelector("progress").value = percent;
    said.textContent = trouble || `${percent - (percent % 10)} % sent`;
  };
  button.disabled = true;
  sending.hidden = false;
  try {
    const upload = await send(file, tell);
    location.assign(`/imports/files/${upload}`);
  } catch (error) {
    if (!(error instanceof Refused)) {
      form.submit(); // whole, as without JavaScript
      return;
    }
    said.textContent = error.message;
    button.disabled = false;
  }
}

// On the document: a form may come later, with a part that was exchanged.
function on(names, does) {
  for (const name of names) {
    document.addEventListener(name, (event) => {
      const form = event.target.closest?.("form[data-upload]");
      if (form) does(form, event);
    });
  }
}

on(["submit"], (form, event) => {
  event.preventDefault();
  submit(form);
});
on(["dragenter", "dragover"], (form, event) => {
  event.preventDefault();
  form.classList.add("over");
});
on(["dragleave", "drop"], (form) => form.classList.remove("over"));
on(["drop"], (form, event) => {
  event.preventDefault();
  if (event.dataTransfer.files.length !== 1) return;
  form.querySelector("input[type=file]").files = event.dataTransfer.files;
  submit(form);
});
