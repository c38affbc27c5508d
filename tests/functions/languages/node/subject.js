// What a Node program of a function may do: threads, garbage from all of them, a file, sockets, a
// child, a profile. It prints what it found, a line each.
'use strict';
const { spawnSync, spawn } = require('child_process');
const { once } = require('events');
const fs = require('fs');
const inspector = require('inspector');
const net = require('net');
const os = require('os');
const path = require('path');
const { Worker } = require('worker_threads');

const say = (name, what) => console.log(`${name} ${what}`);

// Each thread has an isolate with a heap and a collector of its own; the flag stops their loops.
async function threads() {
  const flag = new Int32Array(new SharedArrayBuffer(4));
  const source = `
    const { parentPort, workerData } = require('worker_threads');
    parentPort.postMessage('up');
    while (!Atomics.load(workerData, 0));
  `;
  const workers = Array.from({ length: 4 }, () => new Worker(source, { eval: true, workerData: flag }));
  await Promise.all(workers.map((worker) => once(worker, 'message')));
  let collections = 0;
  for (; collections < 10; collections++) global.gc();
  Atomics.store(flag, 0, 1);
  await Promise.all(workers.map((worker) => once(worker, 'exit')));
  return collections;
}

// A hundred trees are made and dropped, by four threads.
async function garbage() {
  const source = `
    const { parentPort } = require('worker_threads');
    const tree = (depth) => depth ? { left: tree(depth - 1), right: tree(depth - 1) } : {};
    const count = (node) => node ? 1 + count(node.left) + count(node.right) : 0;
    let sum = 0;
    for (let i = 0; i < 25; i++) sum += count(tree(11));
    parentPort.postMessage(sum);
  `;
  const sums = await Promise.all(
    Array.from({ length: 4 }, async () => (await once(new Worker(source, { eval: true }), 'message'))[0])
  );
  return sums.reduce((a, b) => a + b);
}

async function file() {
  const directory = await fs.promises.mkdtemp(path.join(os.tmpdir(), 'node-'));
  await fs.promises.writeFile(path.join(directory, 'a'), 'x'.repeat(1 << 20));
  await fs.promises.rename(path.join(directory, 'a'), path.join(directory, 'b'));
  const text = await fs.promises.readFile(path.join(directory, 'b'), 'utf8');
  await fs.promises.rm(directory, { recursive: true });
  return `${text.length} ${text[0]}`;
}

// Eight clients at once.
async function sockets() {
  const server = net.createServer((peer) => peer.pipe(peer)).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const ask = async () => {
    const peer = net.connect(server.address().port, '127.0.0.1');
    peer.write('hello');
    const [heard] = await once(peer, 'data');
    peer.destroy();
    return heard;
  };
  const all = await Promise.all(Array.from({ length: 8 }, ask));
  server.close();
  return all.join('');
}

async function child() {
  const process = spawn('sh', ['-c', 'cat; exit 3']);
  process.stdin.end('said');
  let said = '';
  process.stdout.on('data', (piece) => { said += piece; });
  const [code] = await once(process, 'close');
  return `${said} ${code}`;
}

async function signalled() {
  // A handler alone does not keep the process.
  const late = setTimeout(() => {}, 10000);
  const caught = once(process, 'SIGTERM');
  process.kill(process.pid, 'SIGTERM');
  const [name] = await caught;
  clearTimeout(late);
  return name;
}

function seccomp() {
  return /Seccomp:\s*(\d)/.exec(fs.readFileSync('/proc/self/status', 'utf8'))[1];
}

// The command makes no namespace: the kernel refuses that to nobody.
function denied() {
  const done = spawnSync('unshare', ['true'], { encoding: 'utf8' });
  return `${done.stderr.trim()} ${done.status}`.trim();
}

(async () => {
  // The profiler's thread signals this one (SIGPROF) while all of this runs.
  const session = new inspector.Session();
  session.connect();
  const post = (what) => new Promise((resolve) => session.post(what, resolve));
  await post('Profiler.enable');
  await post('Profiler.start');
  say('threads', await threads());
  say('garbage', await garbage());
  say('file', await file());
  say('socket', await sockets());
  say('child', await child());
  say('signal', await signalled());
  await post('Profiler.stop');
  say('seccomp', seccomp());
  say('unshare', denied());
})();
