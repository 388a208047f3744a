"""Denoising: scikit-image and OpenCV on a photograph, DIPY on a brain scan, against nearfield denoise.

All filters get the same noisy file, window and patch; each uses the strength that is best for it, which for volumes and
for the slowest filter is found on a part. Of patches, nearfield denoise compares the lowest frequencies, as is its default;
with whole patches, like the others, it is a peer of itself."""
import os
import re
import subprocess
import time

import numpy as np

PHOTO = "/usr/share/xplanet/images/earth.jpg"
SCAN = "/usr/share/mricron/templates/inia19-t1-brain.nii.gz"
SIGMA, WINDOW, PATCH = 25.0, 21, 7
SCAN_SIGMA, SCAN_WINDOW, SCAN_PATCH = 37.6, 7, 3
STRENGTH_STEP = 1.15
WHOLE, WHOLE_NAME = ("--features", "all"), "Nearfield whole patches"
tuned = {}  # strengths by filter, which do not depend on the number of threads


def psnr(clean, result, peak):
    error = np.mean((np.asarray(clean, np.float64) - np.asarray(result, np.float64)) ** 2)
    return 10 * np.log10(peak * peak / error)


class Tool:
    """nearfield denoise on files; its seconds are of the filter alone, as it prints them."""

    def __init__(self, program, threads, folder):
        self.program, self.threads, self.folder = program, threads, folder

    def run(self, noisy, result, window, patch, strength, features):
        said = subprocess.run(
            [self.program, "denoise", noisy, result, "--window", str(window), "--patch", str(patch),
             "--strength", f"{strength:.4f}", "--threads", str(self.threads), *features],
            check=True, capture_output=True, text=True).stdout
        return float(re.search(r"^time: ([0-9.]+) s", said, re.M).group(1))


def best_strength(filter_part, clean, peak, sigma):
    """Climbs from sigma in steps of 15 % until the PSNR falls."""
    def score(power):
        if power not in known:
            known[power] = psnr(clean, filter_part(sigma * STRENGTH_STEP ** power), peak)
        return known[power]

    known, power = {}, -2
    while (better := max((power - 1, power, power + 1), key=score)) != power:
        power = better
    return sigma * STRENGTH_STEP ** power


def timed(function):
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def race(table, timing, names, ours, peers, clean, peak, problem, threads, targets, strengths, repeats):
    """ours() -> (seconds, result); peers likewise. Rounds of one call each."""
    samples = [[] for _ in range(1 + len(peers))]
    scores = [0.0] * (1 + len(peers))
    before = timing.load_now()
    for _ in range(repeats):
        for i, function in enumerate([ours] + peers):
            seconds, result = function()
            samples[i].append(seconds)
            scores[i] = psnr(clean, result, peak)
    disturbed = timing.busy_elsewhere(before, timing.load_now())
    for i, name in enumerate(names, 1):
        note = f"PSNR ours {scores[0]:.2f}, theirs {scores[i]:.2f} dB; strength {strengths[0]:.1f}, {strengths[i]:.1f}"
        if scores[0] < scores[i] - 0.05:
            note += ": WORSE"
        table.add(name, problem, "", threads, samples[0], samples[i], targets[i - 1], abs(scores[0] - scores[i]),
                  int(disturbed), note)


def photograph(table, timing, tool, wanted, quick):
    import cv2
    clean = cv2.imread(PHOTO)
    if clean is None:
        raise RuntimeError(f"there is no {PHOTO} (Debian: xplanet-images)")
    clean = np.ascontiguousarray(clean[256:768, 512:1536])  # 1024x512
    noise = np.random.default_rng(1).normal(0, SIGMA, clean.shape)
    noisy = np.clip(np.rint(clean + noise), 0, 255).astype(np.uint8)
    source, result = (os.path.join(tool.folder, name) for name in ("noisy.png", "result.png"))
    cv2.imwrite(source, noisy)

    def ours(strength, features=()):
        seconds = tool.run(source, result, WINDOW, PATCH, strength, features)
        return seconds, cv2.imread(result)

    cv2.setNumThreads(tool.threads)
    filters, targets = {}, {}
    if wanted("OpenCV"):
        filters["OpenCV Colored"] = lambda x, h: cv2.fastNlMeansDenoisingColored(x, None, h, h, PATCH, WINDOW)
        filters["OpenCV"] = lambda x, h: cv2.fastNlMeansDenoising(x, None, h, PATCH, WINDOW)
        targets["OpenCV Colored"] = targets["OpenCV"] = 1
    if wanted("scikit-image"):
        try:
            from skimage.restoration import denoise_nl_means
        except ImportError as error:
            table.skip("scikit-image", error)
        else:
            def scikit(fast):
                return lambda x, h: 255 * denoise_nl_means(x.astype(np.float32) / 255, PATCH, WINDOW // 2, h / 255,
                                                           fast_mode=fast, channel_axis=-1)
            filters["scikit-image fast"], targets["scikit-image fast"] = scikit(True), None
            if not quick:
                filters["scikit-image"], targets["scikit-image"] = scikit(False), 5
    if not filters:
        return
    if "photograph" not in tuned:
        tuned["photograph"] = {"ours": best_strength(lambda h: ours(h)[1], clean, 255, SIGMA)}
        for name, function in filters.items():
            y, x = (slice(128, 320), slice(256, 512)) if name == "scikit-image" else (slice(None), slice(None))
            part = np.ascontiguousarray(noisy[y, x])  # the slowest of all
            tuned["photograph"][name] = best_strength(lambda h: function(part, h), clean[y, x], 255, SIGMA)
        tuned["photograph"][WHOLE_NAME] = best_strength(lambda h: ours(h, WHOLE)[1], clean, 255, SIGMA)
    strengths = tuned["photograph"]
    names = list(filters)
    peers = [lambda name=name: timed(lambda: filters[name](noisy, strengths[name])) for name in names]
    peers.append(lambda: ours(strengths[WHOLE_NAME], WHOLE))
    names.append(WHOLE_NAME)
    targets[WHOLE_NAME] = None
    race(table, timing, names, lambda: ours(strengths["ours"]), peers, clean, 255, "1024x512 colour w21 p7",
         tool.threads, [targets[name] for name in names], list(strengths.values()), 1 if quick else 3)


def scan(table, timing, tool, wanted, quick):
    if not wanted("DIPY"):
        return
    import nibabel
    from dipy.denoise.nlmeans import nlmeans
    if not os.path.exists(SCAN):
        raise RuntimeError(f"there is no {SCAN} (Debian: mricron-data)")
    whole = np.asarray(nibabel.load(SCAN).dataobj, np.float32)
    size = 64 if quick else 96
    corner = [(n - size) // 2 for n in whole.shape]
    clean = np.ascontiguousarray(whole[tuple(slice(c, c + size) for c in corner)])
    peak = float(clean.max() - clean.min())
    noisy = clean + np.random.default_rng(1).normal(0, SCAN_SIGMA, clean.shape).astype(np.float32)
    part = tuple(slice(size // 2 - 20, size // 2 + 20) for _ in range(3))
    paths = [os.path.join(tool.folder, name) for name in ("noisy.nii", "part.nii", "result.nii")]
    for path, data in ((paths[0], noisy), (paths[1], noisy[part])):
        nibabel.save(nibabel.Nifti1Image(data, np.eye(4)), path)

    def ours(source, strength, features=()):
        seconds = tool.run(source, paths[2], SCAN_WINDOW, SCAN_PATCH, strength, features)
        return seconds, np.asarray(nibabel.load(paths[2]).dataobj)

    def dipy(method):
        return lambda x, h: nlmeans(x, sigma=h, patch_radius=SCAN_PATCH // 2, block_radius=SCAN_WINDOW // 2,
                                    rician=False, num_threads=tool.threads, method=method)

    filters = {"DIPY classic": dipy("classic"), "DIPY blockwise": dipy("blockwise")}
    names = list(filters)
    part_noisy = np.ascontiguousarray(noisy[part])
    if "scan" not in tuned:
        tuned["scan"] = {"ours": best_strength(lambda h: ours(paths[1], h)[1], clean[part], peak, SCAN_SIGMA)}
        for name in names:
            tuned["scan"][name] = best_strength(lambda h: filters[name](part_noisy, h), clean[part], peak, SCAN_SIGMA)
        tuned["scan"][WHOLE_NAME] = best_strength(lambda h: ours(paths[1], h, WHOLE)[1], clean[part], peak, SCAN_SIGMA)
    strengths = tuned["scan"]
    peers = [lambda name=name: timed(lambda: filters[name](noisy, strengths[name])) for name in names]
    peers.append(lambda: ours(paths[0], strengths[WHOLE_NAME], WHOLE))
    names.append(WHOLE_NAME)
    race(table, timing, names, lambda: ours(paths[0], strengths["ours"]), peers, clean, peak, f"MRI {size}^3 w7 p3",
         tool.threads, [3, 3, None], list(strengths.values()), 1 if quick else 3)


def compare(table, timing, tool, wanted, quick):
    for name, how in (("photograph", photograph), ("MRI", scan)):
        try:
            how(table, timing, tool, wanted, quick)
        except Exception as error:  # a peer that fails is reported; the others go on
            table.skip(name, error)
