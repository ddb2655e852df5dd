#!/bin/bash
# Makes the two voices of the demonstration, voice-en.opus and voice-ar.opus, from the dialogue beside this script.
# The voices take turns: both files have the same length, and each is silent while the other speaks. They are
# committed, so this is needed only after a change of the text. Needs espeak-ng, ffmpeg with libopus, and Python 3.
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# speak FILE VOICE PITCH SPEED: one WAV file a line.
speak() {
  local line number=0
  while IFS= read -r line; do
    espeak-ng -a 75 -v "$2" -p "$3" -s "$4" -w "$work/$1-$number.wav" -- "$line"
    number=$((number + 1))
  done < "dialogue-$1.txt"
}
speak en en-gb+m3 45 158
speak ar ar+f2 50 150

python3 - "$work" <<'PYTHON'
import sys, wave

work, rate, pause = sys.argv[1], 22050, 0.7


def read(name):
    with wave.open(f"{work}/{name}.wav") as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, rate)
        return file.readframes(file.getnframes())


tracks = {"en": bytearray(), "ar": bytearray()}
turns = sum(1 for _ in open("dialogue-en.txt", encoding="utf-8"))
assert turns == sum(1 for _ in open("dialogue-ar.txt", encoding="utf-8"))
for turn in range(turns):
    for speaker in tracks:
        spoken = read(f"{speaker}-{turn}") + bytes(int(pause * rate) * 2)
        for name, track in tracks.items():
            track += spoken if name == speaker else bytes(len(spoken))
for name, track in tracks.items():
    with wave.open(f"{work}/{name}.wav", "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(track)
PYTHON

for name in en ar; do
  # Reproducible: no encoder's date, a fixed serial number.
  ffmpeg -loglevel error -y -i "$work/$name.wav" -ar 48000 -ac 1 -c:a libopus -b:a 24k -vbr on -application voip \
    -frame_duration 60 -dtx 1 -map_metadata -1 -fflags +bitexact -flags +bitexact -serial_offset 1 "voice-$name.opus"
done
ls -l voice-*.opus
