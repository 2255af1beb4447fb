// What an operator may change here: a backend's state and weight, and the generation.

import { call, soon } from "/daemon.js";
import { $, setAttribute, setHidden, setText } from "/dom.js";
import { serves } from "/meaning.js";
import { looking } from "/state.js";
import { count } from "/text.js";

const editing = { service: "", backend: null };

function impactText(service, backend, wanted) {
  if (wanted === "enabled") return ["", ""];
  const others = looking.status.services[service].backends.filter((each) => each.id !== backend.id && serves(each)).length;
  const inPlace = backend.active ? `${count(backend.active, "connection is", "connections are")} in place. ` : "No connection is in place. ";
  if (!others) return [`${inPlace}No other backend of ${service} is usable: new clients will be refused.`, "bad"];
  return [`${inPlace}New clients go to the ${others === 1 ? "other usable backend" : `${others} other usable backends`} of ${service}.`, ""];
}

export function showImpact() {
  const wanted = $("backend-form").elements.state.value;
  const [text, tone] = impactText(editing.service, editing.backend, wanted);
  setText($("backend-impact"), text);
  setAttribute($("backend-impact"), "data-tone", tone);
  const words = { enabled: "Enable", drain: "Drain", disabled: "Disable" };
  setText($("backend-submit"), wanted === editing.backend.state ? "Apply" : words[wanted]);
}

export function edit(service, backend, wanted) {
  editing.service = service;
  editing.backend = backend;
  setText($("backend-title"), `${service} / ${backend.id}`);
  setText($("backend-now"), `${backend.address} · ${backend.health.state} · ${backend.state} · weight ${backend.weight}`);
  $("backend-form").elements.state.value = wanted;
  $("backend-weight").value = String(backend.weight);
  setText($("backend-error"), "");
  showImpact();
  $("backend-dialog").showModal();
  $("backend-submit").focus();
}

function failureText(problem) {
  if (problem.name === "TimeoutError") return "No answer in time. What became of it shows here as soon as the daemon answers.";
  if (problem instanceof TypeError) return "The daemon cannot be reached; nothing is known to have changed.";
  return problem.message;
}

export async function submitting(dialog, submit, error, work) {
  submit.disabled = true;
  setText(error, "");
  try {
    toast(await work(), "");
    dialog.close();
  } catch (problem) {
    setText(error, failureText(problem));
  } finally {
    submit.disabled = false;
    soon();
  }
}

function resultText(done, report) {
  const failed = report.dataplanes.filter((each) => each.result !== "ok");
  const warnings = report.warnings ?? [];
  if (failed.length) return `${done}, but not everywhere yet: ${failed.map((each) => `${each.name}: ${each.error}`).join("; ")}`;
  const where = report.dataplanes.length ? `${done} on ${count(report.dataplanes.length, "data plane")}.` : `${done}; no data plane is running.`;
  return [where, ...warnings].join(" ");
}

export async function submitBackend() {
  const { service, backend } = editing;
  const state = $("backend-form").elements.state.value;
  const weight = Number($("backend-weight").value);
  const fields = {};
  if (state !== backend.state) fields.state = state;
  if (weight !== backend.weight) fields.weight = weight;
  if (!Object.keys(fields).length) throw new Error("Nothing is changed.");
  const path = `/v1/services/${encodeURIComponent(service)}/backends/${encodeURIComponent(backend.id)}`;
  const report = await call("PATCH", path, fields);
  const words = Object.entries(fields).map(([key, value]) => `${key} ${value}`).join(", ");
  return resultText(`${service}/${backend.id}: ${words}`, report);
}

let rollingTo = null;

export function askRollback(entry) {
  rollingTo = entry;
  setText($("rollback-title"), `Roll back to generation ${entry.generation}?`);
  setText($("rollback-error"), "");
  $("rollback-dialog").showModal();
}

export async function submitRollback() {
  const report = await call("POST", "/v1/rollback", { generation: rollingTo.generation });
  return resultText(`Generation ${report.generation} has the content of ${report.restored}`, report);
}

let toastEnds = 0;

function toast(text, tone) {
  setAttribute($("toast"), "data-tone", tone);
  setHidden($("toast"), false);
  setText($("toast"), text);
  clearTimeout(toastEnds);
  toastEnds = setTimeout(() => setHidden($("toast"), true), 7000);
}
