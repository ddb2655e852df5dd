"""Publishes a tone over WHIP (RFC 9725) with aiortc, an implementation that shares nothing with ours.

usage: whip.py ENDPOINT INVITATION HZ SECONDS
"""

import asyncio
import fractions
import math
import struct
import sys
import time
import urllib.request

from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamTrack
from av import AudioFrame

RATE = 48000
FRAME = 960


class Tone(MediaStreamTrack):
    kind = "audio"

    def __init__(self, hz):
        super().__init__()
        self.hz, self.position, self.started = hz, 0, None

    async def recv(self):
        self.started = self.started or time.monotonic()
        await asyncio.sleep(max(0.0, self.started + self.position / RATE - time.monotonic()))
        samples = [
            int(8000 * math.sin(2 * math.pi * self.hz * (self.position + i) / RATE)) for i in range(FRAME)
        ]
        frame = AudioFrame(format="s16", layout="mono", samples=FRAME)
        frame.planes[0].update(struct.pack(f"<{FRAME}h", *samples))
        frame.sample_rate, frame.pts, frame.time_base = RATE, self.position, fractions.Fraction(1, RATE)
        self.position += FRAME
        return frame


def ask(method, address, token, body=b"", kind=None):
    request = urllib.request.Request(address, data=body, method=method)
    request.add_header("Authorization", f"Bearer {token}")
    if kind:
        request.add_header("Content-Type", kind)
    return urllib.request.urlopen(request, timeout=10)


async def main(endpoint, token, hz, seconds):
    peer = RTCPeerConnection()
    peer.addTransceiver(Tone(hz), direction="sendonly")
    await peer.setLocalDescription(await peer.createOffer())
    answer = ask("POST", endpoint, token, peer.localDescription.sdp.encode(), "application/sdp")
    assert answer.status == 201, answer.status
    resource = urllib.parse.urljoin(endpoint, answer.headers["Location"])
    await peer.setRemoteDescription(RTCSessionDescription(answer.read().decode(), "answer"))
    for _ in range(100):
        if peer.connectionState == "connected":
            break
        await asyncio.sleep(0.1)
    assert peer.connectionState == "connected", peer.connectionState
    print("connected", flush=True)
    await asyncio.sleep(seconds)
    print("deleted", ask("DELETE", resource, token).status, flush=True)
    await peer.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4])))
