"""Audio to try a speech detector on: what a WAV file holds, or vowels made by rule."""

import wave

import numpy as np

RATE = 16_000

# Frequencies of the first three formants, in Hz: a, e, i, o, u.
VOWELS = ((800, 1150, 2900), (400, 1700, 2600), (270, 2300, 3000), (450, 800, 2830), (325, 700, 2700))


def read_wav(path):
    """A file's samples as int16: mono, 16 kHz, 16 bits, since nothing is converted here."""
    with wave.open(str(path), "rb") as file:
        form = (file.getnchannels(), file.getframerate(), file.getsampwidth() * 8)
        if form != (1, RATE, 16):
            raise SystemExit(f"{path} has {form[0]} channels, {form[1]} Hz, {form[2]} bits; it takes 1, {RATE}, 16")
        return np.frombuffer(file.readframes(file.getnframes()), np.int16)


def speech_like(seconds, seed=0):
    """Syllables: pulses of a voice whose pitch falls and rises, through the formants of changing vowels."""
    noise = np.random.default_rng(seed)
    count = int(seconds * RATE)
    time = np.arange(count) / RATE
    # The voice: a pulse each period, with the softness that lips give it.
    pitch = 120 + 25 * np.sin(2 * np.pi * 0.7 * time) + 3 * np.sin(2 * np.pi * 5.5 * time)
    phase = np.cumsum(pitch / RATE)
    source = np.diff(np.floor(phase), prepend=0.0) + noise.normal(0, 0.01, count)
    spectrum = np.fft.rfft(source)
    frequencies = np.fft.rfftfreq(count, 1 / RATE)
    sounds = []
    for formants in VOWELS:
        response = np.zeros(len(frequencies), complex)
        for number, formant in enumerate(formants):
            width = 60 + 30 * number
            response += 0.6**number / (1 + 1j * (frequencies - formant) / width)
        sounds.append(np.fft.irfft(spectrum * response, count))
    # About four syllables a second, each another vowel, swelling and fading.
    syllable = (time * 4).astype(int)
    swell = np.sin(np.pi * (time * 4 % 1)) ** 0.5
    audio = np.choose(syllable % len(sounds), sounds) * swell
    return 0.4 * audio / np.abs(audio).max()


def sample(seed=0):
    """Seven seconds: silence, speech, silence, speech, silence. Always the same for the same seed; int16."""
    noise = np.random.default_rng(seed)
    parts = [np.zeros(RATE), speech_like(2, seed), np.zeros(RATE), speech_like(1.5, seed + 1), np.zeros(3 * RATE // 2)]
    audio = np.concatenate(parts)
    audio += noise.normal(0, 0.0005, len(audio))
    return (audio * 32767).astype(np.int16)
