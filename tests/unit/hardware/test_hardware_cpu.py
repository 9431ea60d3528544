"""CPU facts from `/proc` and control groups, as written by real machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_hfaccel.hardware.cpu import Limits, read_cpu, read_cpuinfo, read_limits, usable_cores

GIB = 2**30

XEON = """\
processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Intel(R) Xeon(R) Platinum 8480+
flags\t\t: fpu sse2 avx avx2 avx512f avx512_vnni avx512_bf16 avx512_fp16 amx_bf16 amx_tile amx_int8

processor\t: 1
vendor_id\t: GenuineIntel
model name\t: another
flags\t\t: fpu
"""

GRAVITON = """\
processor\t: 0
BogoMIPS\t: 2100.00
Features\t: fp asimd evtstrm asimdhp sve i8mm bf16
CPU implementer\t: 0x41
CPU part\t: 0xd40
"""


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def test_an_x86_cpu_with_amx(tmp_path: Path) -> None:
    name, flags = read_cpuinfo(write(tmp_path, {"proc/cpuinfo": XEON}))
    assert name == "Intel(R) Xeon(R) Platinum 8480+"
    assert set(flags) == {
        "AVX2",
        "AVX-512",
        "AVX512_VNNI",
        "AVX512_BF16",
        "AVX512_FP16",
        "AMX",
        "AMX_BF16",
        "AMX_INT8",
    }


def test_an_arm_cpu_has_no_model_name(tmp_path: Path) -> None:
    name, flags = read_cpuinfo(write(tmp_path, {"proc/cpuinfo": GRAVITON}))
    assert name == "ARM 0x41:0xd40"
    assert flags == ("NEON", "NEON_FP16", "BF16", "I8MM", "SVE")


def test_without_procfs_nothing_is_known(tmp_path: Path) -> None:
    assert read_cpuinfo(tmp_path) == ("", ())
    assert read_limits(tmp_path) == Limits()


def test_a_container_of_version_2(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/memory.max": f"{4 * GIB}\n",
            "sys/fs/cgroup/memory.current": f"{3 * GIB}\n",
            "sys/fs/cgroup/memory.stat": f"anon {GIB}\ninactive_file {2 * GIB}\n",
        },
    )
    assert read_limits(root) == Limits(1.5, 4 * GIB, 3 * GIB)


def test_the_tightest_of_nested_groups_counts(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/user.slice/job.scope\n",
            "sys/fs/cgroup/user.slice/memory.max": f"{2 * GIB}\n",
            "sys/fs/cgroup/user.slice/memory.current": "0\n",
            "sys/fs/cgroup/user.slice/cpu.max": "100000 100000\n",
            "sys/fs/cgroup/user.slice/job.scope/memory.max": "max\n",
            "sys/fs/cgroup/user.slice/job.scope/cpu.max": "max 100000\n",
        },
    )
    assert read_limits(root) == Limits(1.0, 2 * GIB, 2 * GIB)


def test_version_1(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "proc/self/cgroup": "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{GIB}\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{GIB // 4}\n",
            "sys/fs/cgroup/memory/memory.stat": "total_inactive_file 0\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "250000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
    )
    assert read_limits(root) == Limits(2.5, GIB, GIB - GIB // 4)


def test_version_1_without_limits(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "proc/self/cgroup": "5:memory:/\n4:cpu:/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
    )
    assert read_limits(root) == Limits()


@pytest.mark.parametrize(("quota", "cores"), [(0.2, 1), (1.0, 1), (1e6, None)])
def test_a_quota_lowers_the_number_of_cores(quota: float, cores: int | None) -> None:
    unlimited = usable_cores(Limits())
    assert usable_cores(Limits(cpus=quota)) == (unlimited if cores is None else cores)


def test_memory_is_that_of_the_group_not_of_the_machine(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "proc/cpuinfo": XEON,
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/memory.max": "1000000\n",
            "sys/fs/cgroup/memory.current": "400000\n",
            "sys/fs/cgroup/memory.stat": "inactive_file 0\n",
        },
    )
    facts = read_cpu(root)
    assert (facts.memory_bytes, facts.available_bytes) == (1000000, 600000)
    assert facts.to_json()["name"] == "Intel(R) Xeon(R) Platinum 8480+"
