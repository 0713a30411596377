// What the types must refuse; each line is expected to be an error.

import type { components } from "./secateur.js";

type Request = components["schemas"]["JobRequest"];

// @ts-expect-error data is missing
export const nothing: Request = { model: "m" };
// @ts-expect-error there is no such criterion
export const unknown: Request = { model: "m", data: { calibration: "d" }, spec: { criterion: { kind: "obx" } } };
// @ts-expect-error a sparsity is a number
export const text: Request = { model: "m", data: { calibration: "d" }, spec: { target: { sparsity: "a lot" } } };
