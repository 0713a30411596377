// The job of the README, with nothing but fetch and the types that the document gives.

import type { components, paths } from "./secateur.js";

declare const process: { argv: string[] };
declare function require(name: "node:fs"): { readFileSync(path: string): Uint8Array<ArrayBuffer> };

type Schemas = components["schemas"];
type JobEvent = Schemas["Events"]["data"][number];
type Created = paths["/v1/jobs"]["post"]["responses"][202]["content"]["application/json"];

const [, , url, key, modelFile, dataFile] = process.argv as [string, string, string, string, string, string];
const bearer = { Authorization: `Bearer ${key}` };

async function call<T>(path: string, options: RequestInit = {}): Promise<T> {
  const response = await fetch(url + path, { ...options, headers: { ...bearer, ...options.headers } });
  if (!response.ok) {
    const problem = (await response.json()) as Schemas["Problem"];
    throw new Error(`${problem.code}: ${problem.detail}`);
  }
  return (await response.json()) as T;
}

async function ready<T extends Schemas["Model"] | Schemas["Dataset"]>(kind: string, file: string): Promise<T> {
  const body = require("node:fs").readFileSync(file);
  let upload = await call<T>(`/v1/${kind}`, { method: "POST", body });
  while (upload.state === "checking") {
    await new Promise((again) => setTimeout(again, 100));
    upload = await call<T>(`/v1/${kind}/${upload.id}`);
  }
  if (upload.error !== null) throw new Error(`${upload.error.title}: ${upload.error.detail}`);
  return upload;
}

function told(event: JobEvent): string {
  switch (event.type) {
    case "state":
      return event.error ? event.error.detail : event.state;
    case "progress":
      return `${event.phase} ${event.done} of ${event.total}`;
    case "phase":
      return event.phase;
    default:
      return event.type;
  }
}

async function main(): Promise<void> {
  const model = await ready<Schemas["Model"]>("models", modelFile);
  const data = await ready<Schemas["Dataset"]>("datasets", dataFile);
  const request: Schemas["JobRequest"] = {
    model: model.id,
    data: { calibration: data.id },
    spec: { criterion: { kind: "obs" }, target: { sparsity: 0.8 } },
  };
  let job: Created = await call<Created>("/v1/jobs", {
    method: "POST",
    body: JSON.stringify(request),
    headers: { "Content-Type": "application/json" },
  });
  while (job.state === "queued" || job.state === "running") {
    await new Promise((again) => setTimeout(again, 100));
    job = await call<Schemas["Job"]>(`/v1/jobs/${job.id}`);
  }
  const events = await call<Schemas["Events"]>(`/v1/jobs/${job.id}/events`);
  const criterion = job.spec.criterion;
  console.log(
    JSON.stringify({
      state: job.state,
      inverse: criterion?.kind === "obs" ? criterion.inverse : null,
      priority: job.priority,
      removed: job.summary?.sparsity.removed,
      last: told(events.data[events.data.length - 1]!),
      artifacts: job.artifacts.map((artifact) => artifact.name),
    }),
  );
}

void main();
