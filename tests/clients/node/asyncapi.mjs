// What AsyncAPI's parser says of a document, as text or beside its files: node asyncapi.mjs [FILE] <"the document"
import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";

const text = JSON.parse(readFileSync(0));
const { document, diagnostics } = await new Parser().parse(text, process.argv[1] ? { source: process.argv[1] } : {});
const channels = document?.channels().all().map((channel) => channel.address()) ?? [];
const said = diagnostics.map(({ severity, message, path }) => ({ severity, message, path: path.join(".") }));
console.log(JSON.stringify({ channels, said }));
