// Executes a session's cells in Node, inside the sandbox. Its last argument is the number of its channel's descriptor.
// Messages start with `PID MORE `, then JSON; see session.py. What cells print goes by the ordinary streams.
'use strict'
const fs = require('node:fs')
const util = require('node:util')
const vm = require('node:vm')

fs.unlinkSync(__filename)
const channel = Number(process.argv.pop())
const PIECE = 60000

function send (message) {
  const data = Buffer.from(JSON.stringify(message))
  for (let start = 0; start < data.length; start += PIECE) {
    const more = start + PIECE < data.length ? 1 : 0
    fs.writeSync(channel, Buffer.concat([Buffer.from(`${process.pid} ${more} `), data.subarray(start, start + PIECE)]))
  }
}

// Console and streams as messages: one order with all else.
for (const name of ['stdout', 'stderr']) {
  process[name].write = (chunk, encoding, done) => {
    send({ type: 'stream', name, text: typeof chunk === 'string' ? chunk : Buffer.from(chunk).toString() })
    const callback = typeof encoding === 'function' ? encoding : done
    if (callback) process.nextTick(callback)
    return true
  }
}

globalThis.require = require
globalThis.module = module
globalThis.exports = module.exports
const AWAITS = /\bawait\b/
let count = 0

async function run (source) {
  count += 1
  const options = { filename: `<cell ${count}>`, breakOnSigint: true, importModuleDynamically: vm.constants?.USE_MAIN_CONTEXT_DEFAULT_LOADER }
  let script
  try {
    script = new vm.Script(source, options)
  } catch (error) {
    if (!(error instanceof SyntaxError && AWAITS.test(source))) throw error
    // `await` at the top: as a function's body, with what it declares kept as globals and its last expression as value.
    script = compiled(awaiting(source, true), options) ?? new vm.Script(awaiting(source, false), options)
  }
  return await script.runInThisContext(options)
}

function compiled (source, options) {
  try {
    return new vm.Script(source, options)
  } catch {
    return null
  }
}

function awaiting (source, hasValue) {
  const lines = source.trimEnd().split('\n').map(line => line.replace(/^(?:const|let|var)\s+(\w+)\s*=/, 'globalThis.$1 ='))
  const last = lines.pop()
  const value = hasValue ? `return (${last.replace(/;\s*$/, '')})` : last
  return `(async () => {${lines.join('\n')}\n${value}\n})()`
}

function read () {
  const pieces = []
  const buffer = Buffer.alloc(1 << 17)
  for (;;) {
    const length = fs.readSync(channel, buffer, 0, buffer.length)
    if (length === 0) return null
    const space = buffer.indexOf(32)
    pieces.push(Buffer.from(buffer.subarray(space + 3, length)))
    if (buffer[space + 1] === 48) return JSON.parse(Buffer.concat(pieces).toString())
  }
}

function complain (error) {
  const isError = error instanceof Error || util.types.isNativeError(error)
  const text = isError ? String(error.stack) : `Uncaught ${util.inspect(error)}`
  const kept = text.split('\n').filter(line => !line.includes('session.js') && !line.includes('node:'))
  send({ type: 'error', name: isError ? error.name : 'Error', value: isError ? String(error.message) : String(error), traceback: kept.join('\n') + '\n' })
}

process.on('uncaughtException', complain)
process.on('unhandledRejection', complain)

async function serve () {
  send({ type: 'ready' })
  // A cell that waits for what never comes must not end the process for want of work.
  setInterval(() => {}, 1 << 30)
  for (;;) {
    process.on('SIGINT', ignore)
    const message = read()
    if (message === null) process.exit(0)
    let ok = false
    try {
      process.removeListener('SIGINT', ignore)
      const stopped = new Promise((_resolve, reject) => process.once('SIGINT', () => reject(new Error('interrupted'))))
      const value = await Promise.race([run(message.run), stopped])
      if (value !== undefined) {
        const plain = util.inspect(value)
        send({ type: 'result', data: { 'text/plain': plain }, metadata: {} })
      }
      ok = true
    } catch (error) {
      complain(error)
    }
    process.removeAllListeners('SIGINT')
    // What the cell's promises and timers have ready goes first.
    await new Promise(resolve => setImmediate(resolve))
    send({ type: 'done', ok })
  }
}

function ignore () {}

serve()
