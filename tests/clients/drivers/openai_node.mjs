// Drives the npm package `openai`, chat completions: a line of JSON in, a line out.
import { createInterface } from "node:readline";

import OpenAI from "openai";

const parameters = { type: "object", properties: { query: { type: "string" } } };
const tool = { type: "function", function: { name: "search", parameters } };

async function call(ask) {
  const client = new OpenAI({ baseURL: `${ask.url}/v1`, apiKey: ask.key });
  const asked = {
    model: ask.model,
    max_tokens: ask.max_tokens,
    messages: [{ role: "user", content: "Tell a long story." }],
  };
  if (ask.kind === "stream") {
    const options = { stream: true, stream_options: { include_usage: true } };
    return read(await client.chat.completions.create({ ...asked, ...options }));
  }
  if (ask.kind === "tools") asked.tools = [tool];
  const answer = await client.chat.completions.create(asked);
  const choice = answer.choices[0];
  return {
    text: choice.message.content ?? "",
    finish: choice.finish_reason,
    input_tokens: answer.usage.prompt_tokens,
    output_tokens: answer.usage.completion_tokens,
    tools: (choice.message.tool_calls ?? []).map((called) => called.function.name),
    note: answer.comptroller ?? {},
  };
}

async function read(stream) {
  const seen = { text: "", finish: "", note: {} };
  for await (const chunk of stream) {
    for (const choice of chunk.choices) {
      seen.text += choice.delta?.content ?? "";
      seen.finish = choice.finish_reason ?? seen.finish;
    }
    seen.note = chunk.comptroller ?? seen.note;
    if (chunk.usage) {
      seen.input_tokens = chunk.usage.prompt_tokens;
      seen.output_tokens = chunk.usage.completion_tokens;
    }
  }
  return seen;
}

for await (const line of createInterface({ input: process.stdin })) {
  const seen = await call(JSON.parse(line)).catch((error) => ({
    error: error.constructor.name,
    status: error.status ?? null,
    message: String(error.message),
  }));
  console.log(JSON.stringify(seen));
}
