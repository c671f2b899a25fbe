// The page's one tool, a calculator: how a model is told of it, how a call is run, how its arguments are shown.

import { calculate } from "./api.js";

export const CALCULATOR = {
  type: "function",
  function: {
    name: "calculator",
    description: "Work out an arithmetic expression.",
    parameters: {
      type: "object",
      properties: { expression: { type: "string" } },
      required: ["expression"],
      additionalProperties: false,
    },
  },
};

/** Adds a piece of a streamed tool call to the calls so far. */
export function addCall(calls, part) {
  const call = (calls[part.index] ??= { id: part.id, type: "function", function: { name: "", arguments: "" } });
  call.function.name += part.function?.name ?? "";
  call.function.arguments += part.function?.arguments ?? "";
}

/** What a call gives back; what is wrong with it is said to the model as a result. */
export async function run(call, signal) {
  if (call.function.name !== "calculator") return `error: there is no tool named ${call.function.name || "(none)"}`;
  let given;
  try {
    given = JSON.parse(call.function.arguments);
  } catch {
    return "error: the arguments are not JSON";
  }
  if (typeof given?.expression !== "string") return "error: the argument 'expression' is missing";
  return calculate(given.expression, signal);
}

/** The arguments of a call, short where they can be. */
export function asked(text) {
  try {
    const given = JSON.parse(text);
    return Object.keys(given).length === 1 ? String(Object.values(given)[0]) : JSON.stringify(given, null, 1);
  } catch {
    return text;
  }
}
