// The cases of interop.proto, called with @grpc/grpc-js; prints what came of each as JSON.
//
//     node client.js <interop.proto> [--calls] <host:port> [<file of the authority's certificate> [<file of a
//         certificate of its own> <file of that one's key>]]
//
// With --calls it makes those that its standard input has instead, as JSON (tests/interop_support.py), in their order.
// It runs from a folder below the one that holds node_modules.
'use strict';

const fs = require('fs');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const [protoFile, target, authority, own, key] = process.argv.slice(2).filter((each) => each !== '--calls');
const pem = (file) => (file ? fs.readFileSync(file) : null);
const definition = loader.loadSync(protoFile, {keepCase: true, longs: Number, defaults: true});
const {Interop} = grpc.loadPackageDefinition(definition).interop;
const credentials = authority
  ? grpc.credentials.createSsl(pem(authority), pem(key), pem(own))
  : grpc.credentials.createInsecure();
const options = {'grpc.max_receive_message_length': 100 << 20, 'grpc.max_send_message_length': 100 << 20};
const client = new Interop(target, credentials, options);
// Only compresses: a channel of its own.
const gzip = {...options, 'grpc.default_compression_algorithm': grpc.compressionAlgorithms.gzip};
const compressing = new Interop(target, credentials, gzip);
// Another key in each run, though the server goes on.
const run = `js-${process.pid}-${Date.now()}`;

const pattern = (size) => Buffer.from(Uint8Array.from({length: size}, (_, i) => (i * 31 + (i >> 8)) & 255));
const deadline = (seconds) => ({deadline: Date.now() + seconds * 1000});
const PATIENCE = deadline(60);

// One message each way. What failed is a result too.
function unary(method, request, {from = client, metadata = new grpc.Metadata(), options = PATIENCE} = {}) {
  return new Promise((resolve) => {
    const result = {initial: new grpc.Metadata(), trailing: new grpc.Metadata()};
    const call = from[method](request, metadata, options, (error, reply) => Object.assign(result, {error, reply}));
    call.on('metadata', (initial) => Object.assign(result, {initial}));
    call.on('status', (status) => resolve(Object.assign(result, {code: status.code, details: status.details,
      trailing: status.metadata})));
  });
}

// Reads until the end; `each` is called with every message.
function read(call, each) {
  return new Promise((resolve) => {
    call.on('data', each);
    call.on('error', () => {});
    call.on('status', ({code, details}) => resolve({code, details}));
  });
}

// Writes as fast as the other side takes it, and half-closes.
async function writeAll(call, messages) {
  for (const message of messages) {
    if (!call.write(message)) await new Promise((resolve) => call.once('drain', resolve));
  }
  call.end();
}

function sum(messages) {
  return new Promise((resolve) => {
    const call = client.Sum(PATIENCE, (error, reply) =>
      resolve(error ? {code: error.code, details: error.details} : {sum: reply.value}));
    writeAll(call, messages);
  });
}

// Sends a line when the one before has been answered.
async function chat(lines, each, halfClose = true) {
  const call = client.Chat(PATIENCE);
  let next = 0;
  call.write(lines[next++]);
  const end = await read(call, (line) => {
    each(line);
    if (next < lines.length) call.write(lines[next++]);
    else if (halfClose) call.end();
  });
  return end;
}

function withMetadata() {
  const metadata = new grpc.Metadata();
  metadata.add('x-initial', 'one');
  metadata.add('x-initial', 'two');
  metadata.add('x-initial-bin', Buffer.from([0, 1, 255]));
  metadata.add('x-trailing', 'three');
  metadata.add('x-trailing', 'four');
  metadata.add('x-trailing-bin', Buffer.from([255, 0, 10]));
  metadata.add('request_id', 'interop-17');
  return metadata;
}

// Clients may send several values of a name as one, with commas between.
function seen({initial, trailing}) {
  const hex = (values) => values.map((value) => value.toString('hex')).join(', ');
  return {
    initial: initial.get('x-initial').join(', '),
    initial_bin: hex(initial.get('x-initial-bin')),
    trailing: trailing.get('x-trailing').join(', '),
    trailing_bin: hex(trailing.get('x-trailing-bin')),
    request_id: trailing.get('request_id').join(', '),
  };
}

const wasCancelled = async (key) => (await unary('Cancelled', {key})).reply?.cancelled ?? false;

const raw = (path) => new Promise((resolve) =>
  client.makeUnaryRequest(path, (value) => value, (value) => value, Buffer.alloc(0), new grpc.Metadata(), PATIENCE,
    (error) => resolve({code: error ? error.code : 0})));

const cases = {
  async unary() {
    const {code, reply} = await unary('Echo', {text: 'grüße ✓'});
    return {code, text: reply.text};
  },
  async unary_empty() {
    const {code, reply} = await unary('Echo', {});
    return {code, text: reply.text, bytes: reply.payload.length};
  },
  async unary_large() {
    const payload = pattern(32 << 20);
    const {code, reply} = await unary('Echo', {payload});
    return {code, equal: payload.equals(reply.payload)};
  },
  async gzip() {
    const payload = pattern(1 << 20);
    const metadata = new grpc.Metadata();
    metadata.add('x-compress', 'gzip');
    const {code, reply} = await unary('Echo', {payload}, {from: compressing, metadata});
    return {code, equal: payload.equals(reply.payload)};
  },
  async server_streaming() {
    let count = 0, ordered = true;
    const {code} = await read(client.Range({count: 5000}, PATIENCE), ({value}) => { ordered &&= value === count++; });
    return {code, count, ordered};
  },
  async server_streaming_empty() {
    let count = 0;
    const {code} = await read(client.Range({}, PATIENCE), () => { count++; });
    return {code, count};
  },
  async server_streaming_large() {
    const sizes = [];
    const call = client.Range({count: 4, padding: (4 << 20) + 3}, PATIENCE);
    const {code} = await read(call, ({padding}) => sizes.push(padding.length));
    return {code, sizes};
  },
  async client_streaming() {
    return sum(Array.from({length: 5000}, (_, value) => ({value})));
  },
  async client_streaming_empty() {
    return sum([]);
  },
  async both_ways() {
    const lines = [];
    const {code} = await chat(['one', 'two', 'three'].map((text) => ({text})), ({text}) => lines.push(text));
    return {code, lines};
  },
  async both_ways_large() {
    const payloads = [1, 2, 3].map((times) => pattern(times * (1 << 20) + times));
    let count = 0, equal = true;
    const {code} = await chat(payloads.map((payload) => ({payload})), ({payload}) => {
      equal &&= Buffer.from(payload).reverse().equals(payloads[count++]);
    });
    return {code, count, equal};
  },
  async both_ways_ended_by_the_server() {
    const lines = [];
    const end = await chat([{text: 'one'}, {text: 'two', code: 9}, {}], ({text}) => lines.push(text), false);
    return {...end, lines};
  },
  async metadata() {
    const result = await unary('Echo', {}, {metadata: withMetadata()});
    return {code: result.code, ...seen(result)};
  },
  async metadata_of_an_error() {
    const result = await unary('Echo', {code: 5}, {metadata: withMetadata()});
    return {code: result.code, ...seen(result)};
  },
  async error_details() {
    const {code, details} = await unary('Echo', {code: 9, details: '50 % off: naïve ✗\nsecond line'});
    return {code, details};
  },
  async details_of_ok() {
    const {code, details} = await unary('Echo', {details: 'all is well'});
    return {code, details};
  },
  async status_details() {
    const metadata = new grpc.Metadata();
    const status = Buffer.from('08091203626164', 'hex');
    metadata.add('x-status-bin', status);
    const {code, details, trailing} = await unary('Echo', {code: 9, details: 'bad'}, {metadata});
    return {code, details, equal: status.equals(trailing.get('grpc-status-details-bin')[0] ?? Buffer.alloc(0))};
  },
  async every_code() {
    const codes = [];
    for (let code = 1; code <= 16; code++) codes.push((await unary('Echo', {code})).code);
    return {codes};
  },
  async deadline() {
    const begin = Date.now(), key = `${run}-deadline`;
    const {code} = await unary('Echo', {wait: 60, key}, {options: deadline(0.5)});
    return {code, soon: Date.now() - begin < 20000, cancelled: await wasCancelled(key)};
  },
  async cancel() {
    const key = `${run}-cancel`;
    let count = 0;
    const call = client.Range({count: -1, key}, PATIENCE);
    const {code} = await read(call, () => { if (++count === 3) call.cancel(); });
    return {code, cancelled: await wasCancelled(key)};
  },
  async unknown_method() {
    return raw('/interop.Interop/Nothing');
  },
  async unknown_service() {
    return raw('/interop.Nothing/Echo');
  },
  async concurrent() {
    const texts = Array.from({length: 200}, (_, number) => `number ${number}`);
    const answers = await Promise.all(texts.map((text) => unary('Echo', {text})));
    return {right: answers.filter(({reply}, number) => reply?.text === texts[number]).length};
  },
};

// Makes a call of messages that are bytes. A channel of its own, since it is channels that compress.
async function make({path, requests, streams, metadata, timeout, compression, take}) {
  const algorithm = grpc.compressionAlgorithms[compression || 'identity'];
  const caller = new grpc.Client(target, credentials, {...options, 'grpc.default_compression_algorithm': algorithm});
  const asItIs = (message) => message;
  const bodies = requests.map((request) => Buffer.from(request, 'base64'));
  const sent = new grpc.Metadata();
  for (const [name, value] of metadata) sent.add(name, value);
  const messages = [];
  let call;
  if (streams) {
    call = caller.makeBidiStreamRequest(path, asItIs, asItIs, sent, deadline(timeout));
    call.on('data', (message) => { if (messages.push(message) === take) call.cancel(); });
    call.on('error', () => {});
    writeAll(call, bodies);
  } else {
    call = caller.makeUnaryRequest(path, asItIs, asItIs, bodies[0], sent, deadline(timeout), (error, message) => {
      if (!error) messages.push(message);
    });
  }
  const status = await new Promise((resolve) => call.on('status', resolve));
  caller.close();
  return {
    code: status.code,
    details: status.details,
    messages: messages.map((message) => message.toString('base64')),
    metadata: Object.keys(status.metadata.getMap()).flatMap((name) =>
      status.metadata.get(name).filter((value) => typeof value === 'string').map((value) => [name, value])),
  };
}

async function makeCalls() {
  const results = [];
  for (const call of JSON.parse(fs.readFileSync(0))) results.push(await make(call));
  console.log(JSON.stringify(results));
}

async function main() {
  const results = {};
  for (const [name, run] of Object.entries(cases)) {
    try {
      results[name] = await run();
    } catch (error) {
      results[name] = {failed: String(error)};
    }
  }
  console.log(JSON.stringify(results));
  client.close();
  compressing.close();
}

if (process.argv.includes('--calls')) makeCalls();
else main();
