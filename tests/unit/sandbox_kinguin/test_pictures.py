import struct
import zlib

import pytest
from sandbox.kinguin.pictures import PICTURE_TYPES, draw

LETTER_I = ["01110", "00100", "00100", "00100", "00100", "00100", "01110"]
# One letter with a margin of two dots on each side.
WIDTH, HEIGHT = 9, 11


def dots(pixels: list[str], scale: int) -> list[str]:
    return [row[2 * scale : -2 * scale : scale] for row in pixels[2 * scale : -2 * scale : scale]]


def test_a_png_shows_the_text() -> None:
    png = draw("i", "image/png")
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    chunks, rest = {}, png[8:]
    while rest:
        (length,) = struct.unpack(">I", rest[:4])
        name, data = rest[4:8], rest[8 : 8 + length]
        assert struct.unpack(">I", rest[8 + length : 12 + length])[0] == zlib.crc32(name + data)
        chunks[name], rest = data, rest[12 + length :]
    width, height, depth = struct.unpack(">IIB", chunks[b"IHDR"][:9])
    assert (width, height, depth) == (WIDTH * 4, HEIGHT * 4, 1)
    raw, stride = zlib.decompress(chunks[b"IDAT"]), 1 + (width + 7) // 8
    rows = ["".join(f"{byte:08b}" for byte in raw[at + 1 : at + stride])[:width] for at in range(0, len(raw), stride)]
    black = [row.translate(str.maketrans("01", "10")) for row in rows]
    assert dots(black, 4) == LETTER_I


def test_a_gif_shows_the_text() -> None:
    gif = draw("I", "image/gif")
    assert struct.unpack("<HH", gif[6:10]) == (WIDTH * 4, HEIGHT * 4)
    at, packed = 13 + 6 + 10 + 1, b""
    while gif[at]:
        packed += gif[at + 1 : at + 1 + gif[at]]
        at += 1 + gif[at]
    assert gif[at:] == b"\x00;"
    bits = "".join(f"{byte:08b}"[::-1] for byte in packed)
    codes = [int(bits[start : start + 3][::-1], 2) for start in range(0, len(bits) - 2, 3)]
    pixels = "".join("1" if code == 0 else "0" for code in codes[: codes.index(5)] if code < 4)
    assert dots([pixels[row : row + WIDTH * 4] for row in range(0, len(pixels), WIDTH * 4)], 4) == LETTER_I


def test_a_jpeg_shows_the_text() -> None:
    jpeg = draw("I", "image/jpeg")
    assert (jpeg[:2], jpeg[-2:]) == (b"\xff\xd8", b"\xff\xd9")
    frame = jpeg.index(b"\xff\xc0")
    assert struct.unpack(">HH", jpeg[frame + 5 : frame + 9]) == (HEIGHT * 8, WIDTH * 8)
    scan = jpeg[jpeg.index(b"\xff\xda") + 10 : -2].replace(b"\xff\x00", b"\xff")
    bits = "".join(f"{byte:08b}" for byte in scan)
    sizes = {"00": 0, "111110": 8}
    level, blocks = 0, ""
    while len(blocks) < WIDTH * HEIGHT:
        code = next(code for code in ("00", "110", "11110", "111110", "1111110") if bits.startswith(code))
        size = sizes[code] if code in sizes else {"110": 5, "11110": 7, "1111110": 9}[code]
        value, bits = bits[len(code) : len(code) + size], bits[len(code) + size :]
        level += 0 if not size else int(value, 2) if value[0] == "1" else int(value, 2) - (1 << size) + 1
        blocks += "1" if level < 0 else "0"
        assert bits.startswith("00"), "end of block"
        bits = bits[2:]
    assert dots([blocks[row : row + WIDTH] for row in range(0, len(blocks), WIDTH)], 1) == LETTER_I


@pytest.mark.parametrize("content_type", sorted(PICTURE_TYPES))
@pytest.mark.parametrize("text", ["", "Ä?", "X" * 500])
def test_any_text_can_be_drawn(content_type: str, text: str) -> None:
    assert draw(text, content_type)
