// Pages work without this script. It keeps them up to date and uploads files in pieces.
"use strict";

// --- Refreshing the page -----------------------------------------------------------------------------------------
// Elements with `data-live` are replaced whenever they differ, those with `data-once` only while they are empty.
// `data-every` is the interval in milliseconds. A page without it is not refreshed.

let timer = 0;
let loading = false;
let again = false;
let missed = 0;
let events = null;
let followed = false;

function replace(part, next) {
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

async function reload() {
  clearTimeout(timer);
  if (document.hidden) return;
  if (loading) {
    again = true;
    return;
  }
  loading = true;
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (!answer.ok) throw new Error(answer.status);
    const next = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of document.querySelectorAll("[data-live], [data-once]")) {
      const same = next.getElementById(part.id);
      if (same) replace(part, same);
    }
    missed = 0;
  } catch {
    missed += 1;
  }
  showWhetherServerResponds();
  loading = false;
  plan();
}

function plan() {
  const waits = [...document.querySelectorAll("[data-every]")].map((part) => Number(part.dataset.every));
  if (!waits.length) {
    events?.close();
    return;
  }
  // With an event stream, polling is only a fallback.
  const wait = again ? 500 : followed ? 15000 : Math.min(...waits) * Math.min(missed + 1, 10);
  again = false;
  timer = setTimeout(reload, wait);
}

function showWhetherServerResponds() {
  const existing = document.getElementById("no-answer");
  if (missed < 3) existing?.remove();
  else if (!existing) {
    const notice = document.createElement("p");
    notice.id = "no-answer";
    notice.className = "notice bad";
    notice.setAttribute("role", "status");
    notice.textContent = "The server is not responding. This page may be out of date.";
    document.querySelector("h1").after(notice);
  }
}

// Follow job changes. Only a visible tab listens, because a browser allows few connections per server.
function follow() {
  const part = document.querySelector("[data-follow][data-every]");
  if (!part || document.hidden) return;
  const one = part.dataset.follow;
  events = new EventSource(`/api/jobs/events${one ? `?id=${encodeURIComponent(one)}` : ""}`);
  const soon = () => {
    if (loading) again = true;
    else {
      clearTimeout(timer);
      timer = setTimeout(reload, 250);
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
  reload();
});
// A page restored from the browser's cache is outdated.
addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
follow();
plan();

// --- Uploading files in pieces -----------------------------------------------------------------------------------
// After a lost connection the upload continues from the server's offset. So it does after the page was closed, if the
// same file is chosen again.

const PIECE = 1024 * 1024;
const UPLOADS = "/import/backfill/uploads";

class Refused extends Error {}

async function ask(address, options) {
  const answer = await fetch(address, options);
  if (answer.ok) return answer;
  const body = await answer.json().catch(() => ({}));
  const message = [body.error || `The server answered ${answer.status}.`, body.hint].filter(Boolean).join(" ");
  if (answer.status >= 500 || [404, 405, 408, 409, 429].includes(answer.status)) throw new Error(message);
  throw new Refused(message);
}

async function begin(file, remembered) {
  const known = localStorage.getItem(remembered);
  if (known) {
    const head = await fetch(`${UPLOADS}/${known}`, { method: "HEAD" });
    if (head.ok) return [known, Number(head.headers.get("Upload-Offset"))];
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

async function send(file, report) {
  const remembered = `upload ${file.name} ${file.size} ${file.lastModified}`;
  let [upload, at] = await begin(file, remembered);
  for (let tries = 0; at < file.size;) {
    report(at);
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
      report(at, "Connection lost. The upload will continue automatically.");
      await new Promise((resolve) => setTimeout(resolve, Math.min(30000, 500 * 2 ** tries)));
      const head = await fetch(`${UPLOADS}/${upload}`, { method: "HEAD" }).catch(() => null);
      if (head?.ok) at = Number(head.headers.get("Upload-Offset"));
      if (head?.status === 404) {
        localStorage.removeItem(remembered);
        throw new Refused("The upload has expired. Send the file again.");
      }
    }
  }
  localStorage.removeItem(remembered);
  return upload;
}

async function submit(form) {
  const file = form.querySelector("input[type=file]").files[0];
  const sending = form.querySelector(".sending");
  const status = sending.querySelector("[role=status]");
  const button = form.querySelector("button");
  const report = (at, problem) => {
    const percent = Math.floor((100 * at) / file.size);
    sending.querySelector("progress").value = percent;
    status.textContent = problem || `${percent - (percent % 10)} % sent`;
  };
  button.disabled = true;
  sending.hidden = false;
  try {
    const upload = await send(file, report);
    location.assign(`/imports/files/${upload}`);
  } catch (error) {
    if (!(error instanceof Refused)) {
      form.submit(); // as a whole, as without JavaScript
      return;
    }
    status.textContent = error.message;
    button.disabled = false;
  }
}

// Listen on the document, because a refresh may replace the form.
function on(names, handler) {
  for (const name of names) {
    document.addEventListener(name, (event) => {
      const form = event.target.closest?.("form[data-upload]");
      if (form) handler(form, event);
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
