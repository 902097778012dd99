"""A WebSocket server that echoes, and a client that checks what it hears: websocket.py serve|ask HOST PORT [VIA PORT]"""

import asyncio
import os
import sys

import websockets

MOST = 4 << 20


async def serve(host, port):
    async def echo(socket, path=None):
        async for message in socket:
            await socket.send(message)

    async with websockets.serve(echo, host, port, max_size=MOST):
        print("listening", flush=True)
        await asyncio.Future()


async def ask(host, port, *via):
    # Dialled is another host and port where they are named; asked for is the first all the same.
    dialled = dict(zip(("host", "port"), via))
    async with websockets.connect(f"ws://{host}:{port}/", max_size=MOST, **dialled) as socket:
        for message in ["a line", "", os.urandom(1 << 20)] + [str(number) for number in range(100)]:
            await socket.send(message)
            assert await socket.recv() == message, "not what was sent"
        await asyncio.wait_for(await socket.ping(), 10)
    print("echoed, closed with", socket.close_code)


asyncio.run({"serve": serve, "ask": ask}[sys.argv[1]](*sys.argv[2:]))
