"""Pictures of a key, as a merchant would scan them: real PNG, JPEG and GIF files in which the key can be read.

Made by hand because the sandbox needs three tiny files, not a picture library. Every picture is black on white, one
square of pixels for each dot of a 5x7 font.
"""

import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence

_MARGIN = 2
_PITCH = 6
_HEIGHT = 7
_WIDEST = 40
_SCALE = 4

# Seven rows of five dots each, as one hexadecimal pair a row.
_FONT: Mapping[str, str] = {
    "0": "0E11131519110E", "1": "040C040404040E", "2": "0E11010204081F", "3": "1F02040201110E",
    "4": "02060A121F0202", "5": "1F101E0101110E", "6": "0608101E11110E", "7": "1F010204080808",
    "8": "0E11110E11110E", "9": "0E11110F01020C", "A": "0E1111111F1111", "B": "1E11111E11111E",
    "C": "0E11101010110E", "D": "1C12111111121C", "E": "1F10101E10101F", "F": "1F10101E101010",
    "G": "0E11101711110F", "H": "1111111F111111", "I": "0E04040404040E", "J": "0702020202120C",
    "K": "11121418141211", "L": "1010101010101F", "M": "111B1515111111", "N": "11111915131111",
    "O": "0E11111111110E", "P": "1E11111E101010", "Q": "0E11111115120D", "R": "1E11111E141211",
    "S": "0F10100E01011E", "T": "1F040404040404", "U": "1111111111110E", "V": "11111111110A04",
    "W": "1111111515150A", "X": "11110A040A1111", "Y": "1111110A040404", "Z": "1F01020408101F",
    "-": "0000001F000000", " ": "00000000000000",
}  # fmt: skip
_UNKNOWN = "1F11111111111F"

Dots = Sequence[Sequence[bool]]


def draw(text: str, content_type: str) -> bytes:
    """Return a picture file of this type that shows the text; its first 40 characters if it is longer."""
    return _ENCODERS[content_type](_dots(text.upper()[:_WIDEST]))


def _dots(text: str) -> Dots:
    width = len(text) * _PITCH - 1 + 2 * _MARGIN if text else 2 * _MARGIN
    rows = [[False] * width for _ in range(_HEIGHT + 2 * _MARGIN)]
    for place, character in enumerate(text):
        for row, bits in enumerate(bytes.fromhex(_FONT.get(character, _UNKNOWN))):
            for column in range(5):
                rows[_MARGIN + row][_MARGIN + place * _PITCH + column] = bool(bits >> (4 - column) & 1)
    return rows


def _png(dots: Dots) -> bytes:
    """Encode as grey PNG with one bit a pixel (ISO/IEC 15948)."""
    rows = bytearray()
    for row in dots:
        bits = "".join(("0" if dot else "1") * _SCALE for dot in row)
        bits += "0" * (-len(bits) % 8)
        rows += (b"\0" + int(bits, 2).to_bytes(len(bits) // 8, "big")) * _SCALE
    header = struct.pack(">IIBBBBB", len(dots[0]) * _SCALE, len(dots) * _SCALE, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(rows), 6)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def _gif(dots: Dots) -> bytes:
    """Encode as GIF 87a with two colours; LZW codes of three bits, cleared before they would grow to four."""
    width, height = len(dots[0]) * _SCALE, len(dots) * _SCALE
    pixels = [0 if dot else 1 for row in dots for _ in range(_SCALE) for dot in row for _ in range(_SCALE)]
    packed = _little_endian_bits(_gif_codes(pixels), 3)
    blocks = b"".join(
        bytes([len(packed[start : start + 255])]) + packed[start : start + 255] for start in range(0, len(packed), 255)
    )
    return b"".join(
        (
            b"GIF87a",
            struct.pack("<HHBBB", width, height, 0x80, 0, 0),
            b"\x00\x00\x00\xff\xff\xff",
            b"," + struct.pack("<HHHHB", 0, 0, width, height, 0),
            b"\x02" + blocks + b"\x00",
            b";",
        )
    )


def _gif_codes(pixels: Sequence[int]) -> Iterator[int]:
    clear, end, at_once = 4, 5, 2
    for start in range(0, len(pixels), at_once):
        yield clear
        yield from pixels[start : start + at_once]
    yield end


def _little_endian_bits(codes: Iterator[int], width: int) -> bytes:
    """Pack codes from the lowest bit of each byte upwards."""
    bits = "".join(format(code, f"0{width}b")[::-1] for code in codes)
    return bytes(int(bits[start : start + 8][::-1], 2) for start in range(0, len(bits), 8))


# Code lengths and values of the usual DC table (ITU-T T.81, K.3.1).
_DC_COUNTS = (0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0)
_DC_CODES = ("00", "010", "011", "100", "101", "110", "1110", "11110", "111110", "1111110", "11111110", "111111110")
# Two AC codes of two bits: end of block, and sixteen zeros, which no block here has.
_AC_COUNTS = (0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
_AC_VALUES = (0x00, 0xF0)
_END_OF_BLOCK = "00"
_QUANTUM = 8


def _jpeg(dots: Dots) -> bytes:
    """Encode as grey baseline JPEG (ITU-T T.81): one dot is one block of 8x8, so only its mean is coded."""
    bits: list[str] = []
    last = 0
    for row in dots:
        for dot in row:
            # The DC coefficient of a flat block is eight times its level; the quantum takes that away again.
            level = -128 if dot else 127
            bits += (_dc_bits(level - last), _END_OF_BLOCK)
            last = level
    stream = "".join(bits)
    stream += "1" * (-len(stream) % 8)
    scan = int(stream, 2).to_bytes(len(stream) // 8, "big").replace(b"\xff", b"\xff\x00")
    frame = struct.pack(">BHHBBBB", 8, len(dots) * 8, len(dots[0]) * 8, 1, 1, 0x11, 0)
    return b"".join(
        (
            b"\xff\xd8",
            _segment(0xE0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0"),
            _segment(0xDB, bytes([0, *[_QUANTUM] * 64])),
            _segment(0xC0, frame),
            _segment(0xC4, bytes([0x00, *_DC_COUNTS, *range(len(_DC_CODES))])),
            _segment(0xC4, bytes([0x10, *_AC_COUNTS, *_AC_VALUES])),
            _segment(0xDA, b"\x01\x01\x00\x00\x3f\x00"),
            scan,
            b"\xff\xd9",
        )
    )


def _dc_bits(difference: int) -> str:
    size = abs(difference).bit_length()
    if not size:
        return _DC_CODES[0]
    value = difference if difference > 0 else difference + (1 << size) - 1
    return _DC_CODES[size] + format(value, f"0{size}b")


def _segment(marker: int, data: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


_ENCODERS: Mapping[str, Callable[[Dots], bytes]] = {"image/png": _png, "image/jpeg": _jpeg, "image/gif": _gif}
PICTURE_TYPES = frozenset(_ENCODERS)
