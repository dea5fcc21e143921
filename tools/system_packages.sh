#!/bin/sh
# Libraries that Qt and a virtual screen need on a bare Debian or Ubuntu. Does nothing elsewhere, or without root.
set -eu
[ "$(uname)" = Linux ] || exit 0
command -v xvfb-run >/dev/null 2>&1 && command -v xauth >/dev/null 2>&1 && ldconfig -p | grep -q libxcb-cursor && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "note: for tests without a screen install xvfb, xauth and libxcb-cursor0 (see docs/install.md)" >&2
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends g++ xvfb xauth libegl1 libgl1 libgl1-mesa-dri libxkbcommon-x11-0 \
    libxcb-cursor0 libxcb-icccm4 libxcb-image0 libxcb-keysyms1 libxcb-randr0 libxcb-render-util0 libxcb-shape0 \
    libxcb-xkb1 libdbus-1-3 libfontconfig1 libglib2.0-0 >/dev/null
