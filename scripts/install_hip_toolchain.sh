#!/usr/bin/env bash
# Installs a HIP cross compiler (clang 22, device libraries, HIP headers) into one folder on Debian 12, without root,
# without a GPU and without touching the system's packages or apt configuration.
#
#   scripts/install_hip_toolchain.sh [--with-ck] [PREFIX]
#
# PREFIX defaults to ${XDG_CACHE_HOME:-~/.cache}/flash-attn/hip-toolchain and is replaced as a whole.
# --with-ck adds composable_kernel's headers (CK and CK-tile) as PREFIX/composable_kernel/include.
# Downloads are pinned in hip_toolchain.lock and kept in ${XDG_CACHE_HOME:-~/.cache}/flash-attn/downloads.
# DEBIAN_MIRROR and DEBIAN_SECURITY_MIRROR override the mirrors that this machine's apt uses.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
lock=$here/hip_toolchain.lock
cache=${XDG_CACHE_HOME:-$HOME/.cache}/flash-attn
downloads=$cache/downloads
ck_wheel=amd_aiter-0.1.7.post2.dev18-py3-none-any.whl
ck_requirement=amd-aiter==0.1.7.post2.dev18
ck_sha256=fe139d74438217c35e87e3b961166bac8db2d381eadccb371da2e63615f05a31

fail() {
    printf 'install_hip_toolchain: %s\n' "$@" >&2
    exit 1
}

usage() {
    sed -n '2,/^set /s/^# \{0,1\}//p' "$0" | grep -v '^set '
}

with_ck=no
prefix=
for argument in "$@"; do
    case $argument in
        --with-ck) with_ck=yes ;;
        -h | --help) usage && exit 0 ;;
        -*) fail "unknown option $argument; accepted: --with-ck, --help" ;;
        *) [ -z "$prefix" ] || fail "one PREFIX expected, got $prefix and $argument" && prefix=$argument ;;
    esac
done
prefix=$(realpath -m "${prefix:-$cache/hip-toolchain}")
stamp=$prefix/.hip-toolchain
pins=$(sha256sum "$lock" "$0" | cut -d' ' -f1 | tr '\n' ' ')

has_sha256() { # FILE SHA256
    [ -f "$1" ] && [ "$(sha256sum "$1" | cut -d' ' -f1)" = "$2" ]
}

locked() { # SUITE or "" for all: lines "package version sha256"
    awk -v suite="$1" '!/^#/ && NF == 4 && (suite == "" || $1 == suite) { print $2, $3, $4 }' "$lock"
}

deb_path() { # PACKAGE VERSION
    printf '%s/%s_%s_amd64.deb' "$downloads" "$1" "${2//:/%3a}"
}

mirror_of() { # SUITE: the mirror that this machine already uses for it, or nothing
    local files=()
    shopt -s nullglob
    files=(/etc/apt/sources.list.d/*.sources)
    shopt -u nullglob
    [ ${#files[@]} -eq 0 ] || awk -v suite="$1" '
        /^URIs:/ { uri = $2 }
        /^Suites:/ { for (i = 2; i <= NF; i++) if ($i == suite) { print uri; exit } }' "${files[@]}"
    [ ! -f /etc/apt/sources.list ] || awk -v suite="$1" '
        $1 == "deb" { for (i = 2; i < NF; i++) if ($(i + 1) == suite && $i ~ /:\/\//) { print $i; exit } }
        ' /etc/apt/sources.list
}

private_apt() { # a configuration of our own: lists, cache and sources in a temporary folder
    local debian security key=/usr/share/keyrings/debian-archive-keyring.gpg
    [ -f "$key" ] || fail "$key is missing: apt-get install debian-archive-keyring"
    debian=${DEBIAN_MIRROR:-$(mirror_of bookworm | head -n 1)}
    debian=${debian:-http://deb.debian.org/debian}
    security=${DEBIAN_SECURITY_MIRROR:-$(mirror_of bookworm-security | head -n 1)}
    security=${security:-http://deb.debian.org/debian-security}
    mkdir -p "$work/lists/partial" "$work/archives/partial"
    {
        echo "deb [signed-by=$key arch=amd64] $debian bookworm main"
        echo "deb [signed-by=$key arch=amd64] $debian experimental main"
        echo "deb [signed-by=$key arch=amd64] $security bookworm-security main"
    } >"$work/sources.list"
    cat >"$work/apt.conf" <<CONF
Dir::Etc::sourcelist "$work/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State::lists "$work/lists";
Dir::State::status "/dev/null";
Dir::Cache "$work";
APT::Architecture "amd64";
APT::Sandbox::User "$(id -un)";
Acquire::Languages "none";
CONF
    export APT_CONFIG=$work/apt.conf
    apt-get update -qq || fail "apt-get update failed for the mirrors $debian and $security" \
        "set DEBIAN_MIRROR and DEBIAN_SECURITY_MIRROR to mirrors that this machine reaches"
}

fetch_packages() {
    local package version sha256 missing=()
    while read -r package version sha256; do
        has_sha256 "$(deb_path "$package" "$version")" "$sha256" || missing+=("$package=$version")
    done < <(locked "")
    [ ${#missing[@]} -gt 0 ] || return 0
    echo "downloading ${#missing[@]} packages into $downloads"
    private_apt
    if ! (cd "$downloads" && apt-get download -qq "${missing[@]}"); then
        apt-cache policy "${missing[@]%%=*}" | grep -E '^[a-z]|Candidate' >&2
        fail "a pinned package could not be downloaded: ${missing[*]}" \
            "above are the versions that the mirror offers; if a pinned one is gone, change hip_toolchain.lock"
    fi
    while read -r package version sha256; do
        has_sha256 "$(deb_path "$package" "$version")" "$sha256" ||
            fail "$(deb_path "$package" "$version") does not have the pinned sha256 $sha256"
    done < <(locked "")
}

unpack_packages() {
    local package version sha256 tree=$work/tree name
    while read -r package version sha256; do
        dpkg-deb -x "$(deb_path "$package" "$version")" "$tree"
    done < <(locked "")
    # clang looks for its libraries beside its own folder and for HIP's beside --rocm-path
    ln -s ../../x86_64-linux-gnu/libLLVM.so.22.1 "$tree/usr/lib/llvm-22/lib/libLLVM.so.22.1"
    ln -s lib/llvm-22/lib/clang/22/amdgcn "$tree/usr/amdgcn"
    for name in libamdhip64.so libamdhip64.so.7 libhsa-runtime64.so libhsa-runtime64.so.1; do
        ln -s "x86_64-linux-gnu/$name" "$tree/usr/lib/$name"
    done
    for name in clang clang++ ld.lld llvm-objdump llvm-readelf; do
        ln -s "$name-22" "$tree/usr/bin/$name"
    done
    if [ -e "$prefix" ] && [ -n "$(ls -A "$prefix")" ] && [ ! -f "$stamp" ]; then
        fail "$prefix exists, is not empty and was not made by this script: choose another PREFIX"
    fi
    rm -rf "$prefix"
    mkdir -p "$(dirname "$prefix")"
    mv "$tree/usr" "$prefix"
    # from here on the folder is ours, also if a later step fails
    echo incomplete >"$stamp"
}

check_compiler() {
    local missing
    missing=$(cd "$prefix/lib/llvm-22/bin" && ldd clang lld llvm-objdump llvm-readobj clang-offload-bundler |
        awk '/not found/ { print $1 }' | sort -u | tr '\n' ' ')
    [ -z "$missing" ] || fail "libraries that clang needs are missing: $missing" \
        "apt-get install libz3-4 libedit2 libxml2 libffi8 libzstd1 libcurl4 libpfm4"
    printf '#include <hip/hip_runtime.h>\n__global__ void probe(int* x) { x[threadIdx.x] = 1; }\n' >"$work/probe.hip"
    "$prefix/bin/clang++-22" -x hip --offload-arch=gfx942 "--rocm-path=$prefix" -O1 -c "$work/probe.hip" \
        -o "$work/probe.o" || fail "the compiler does not work (see above)" \
        "if a C++ header is missing: apt-get install g++"
}

install_ck() {
    local inside=aiter_meta/3rdparty/composable_kernel
    if ! has_sha256 "$downloads/$ck_wheel" "$ck_sha256"; then
        echo "downloading $ck_wheel"
        "${PYTHON:-python3}" -m pip download --quiet --no-deps --pre --dest "$downloads" "$ck_requirement" ||
            fail "pip could not download $ck_requirement: the package index must have it"
        has_sha256 "$downloads/$ck_wheel" "$ck_sha256" ||
            fail "$downloads/$ck_wheel does not have the pinned sha256 $ck_sha256"
    fi
    "${PYTHON:-python3}" - "$downloads/$ck_wheel" "$work/ck" "$inside" <<'PYTHON'
import sys
import zipfile

wheel, folder, inside = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive:
    archive.extractall(folder, [name for name in archive.namelist() if name.startswith(f"{inside}/include/")])
PYTHON
    rm -rf "$prefix/composable_kernel"
    mkdir "$prefix/composable_kernel"
    mv "$work/ck/$inside/include" "$prefix/composable_kernel/include"
    echo "$ck_sha256" >"$prefix/composable_kernel/.wheel"
}

mkdir -p "$downloads"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [ "$(cat "$stamp" 2>/dev/null)" != "$pins" ]; then
    for tool in apt-get dpkg-deb; do
        command -v "$tool" >/dev/null || fail "$tool is missing: this script is for Debian 12"
    done
    fetch_packages
    unpack_packages
    check_compiler
    echo "$pins" >"$stamp"
fi
if [ "$with_ck" = yes ] && [ "$(cat "$prefix/composable_kernel/.wheel" 2>/dev/null)" != "$ck_sha256" ]; then
    install_ck
fi

cat <<USAGE
$prefix
  compile:  $prefix/bin/clang++ -x hip --offload-arch=gfx942 --rocm-path=$prefix -O3 -fPIC -shared FILE -o OUT.so
  simulator's tests:  HIP_TOOLCHAIN=$prefix python -m pytest -m hip
USAGE
[ ! -d "$prefix/composable_kernel" ] || echo "  composable_kernel:  CK_DIR=$prefix/composable_kernel"
