#!/bin/sh
# Build, check, test and try smtpctl.pyz; `./build.sh help` lists the words.
set -eu
umask 022
unset CDPATH
cd -- "$(dirname -- "$0")"

REQUIREMENTS=packaging/requirements.txt
VENV=build/venv
ARCHIVE=smtpctl.pyz

usage() {
    cat <<'END'
./build.sh                      build smtpctl.pyz, and smtpctl.pyz.sha256
./build.sh --no-bytecode        the same from sources only: equal octets from every builder
./build.sh demo                 build, then show the queue of a sample spool
./build.sh check                format, lint, types
./build.sh test [argument ...]  check, build, and run all tests; arguments go to pytest
./build.sh stress               kill the daemon under load, 200 times or $STRESS_ROUNDS
./build.sh bench [name]         build, then measure: queue, start, or daemon
./build.sh clean                remove everything that was built
END
}

fail() {
    echo "build.sh: $1" >&2
    exit "${2:-1}"
}

# Print the first interpreter of at least 3.$1, the system's own before any other.
find_python() {
    for python in /usr/bin/python3 python3 python3.15 python3.14 python3.13 python3.12 \
        python3.11 python3.10; do
        if "$python" -c "import sys; sys.exit(sys.version_info < (3, $1))" 2>/dev/null; then
            "$python" -c 'import sys; print(sys.executable)'
            return
        fi
    done
    fail "Python 3.$1 or later is needed to $2"
}

# Make the virtual environment hold the tools of a group: `build`, or `test` which is all.
# A stamp says what was installed; it is written last, so that half an environment counts as none.
need_tools() {
    stamp=$(cksum <$REQUIREMENTS)
    installed=$(cat $VENV/.installed 2>/dev/null || :)
    case $installed in
    "test $stamp" | "$1 $stamp") return ;;
    esac
    if [ "$1" = test ]; then
        python=$(find_python 11 "test")
        tools=$(sed -e '/^#/d' $REQUIREMENTS)
    else
        python=$(find_python 10 "build")
        tools=$(sed -e '/^# to test/,$d' -e '/^#/d' $REQUIREMENTS)
    fi
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$python cannot make virtual environments: install the package python3-venv"
    mkdir -p build
    rm -rf $VENV
    log=build/tools.log
    # shellcheck disable=SC2086 # one word per tool
    if ! "$python" -m venv $VENV >$log 2>&1 ||
        ! $VENV/bin/python -I -m pip install --no-input --disable-pip-version-check --no-deps \
            $tools >>$log 2>&1; then
        cat $log >&2
        fail "the tools named in $REQUIREMENTS could not be installed"
    fi
    echo "$1 $stamp" >$VENV/.installed
}

# Another owner's repository is read all the same: this script is already running from it.
ask_git() {
    git -c safe.directory="$PWD" --no-optional-locks "$@" 2>/dev/null
}

# Print the commit, `-dirty` behind it when the tree holds anything else.
commit() {
    if [ -e .git ] && name=$(ask_git rev-parse --short=12 HEAD); then
        [ -z "$(ask_git status --porcelain)" ] || name=$name-dirty
        echo "$name"
    else
        echo unknown
    fi
}

# Copy what the archive holds: the program, its manual pages, nothing else.
stage() {
    find smtpctl.py smtpd_core man -type f \( -name '*.py' -o -path 'man/*.[1-9]' \) |
        while IFS= read -r file; do
            mkdir -p "$1/$(dirname "$file")"
            cp "$file" "$1/$file"
            chmod 644 "$1/$file"
        done
}

build() {
    case $# in
    0) bytecode= ;;
    *) bytecode=$1 ;;
    esac
    need_tools build
    work=$(mktemp -d build/work.XXXXXX)
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    stage "$work/stage"
    # What shiv reads from the environment would be the builder's.
    env -u SOURCE_DATE_EPOCH LC_ALL=C.UTF-8 $VENV/bin/python -I -m shiv \
        --site-packages "$work/stage" --entry-point smtpctl:main \
        --reproducible --uncompressed -o "$work/raw.pyz"
    # shellcheck disable=SC2086 # nothing, or one option
    $VENV/bin/python -I -B packaging/seal.py "$work/raw.pyz" "$work/stage" $ARCHIVE \
        --commit "$(commit)" $bytecode
    rm -rf "$work"
    trap - EXIT INT TERM
}

check() {
    need_tools test
    echo "ruff format --check" && $VENV/bin/ruff format --check .
    echo "ruff check" && $VENV/bin/ruff check .
    echo "mypy" && $VENV/bin/mypy
}

show() {
    echo
    echo "\$ ./$ARCHIVE $*"
    "./$ARCHIVE" "$@"
}

word=${1:-}
[ $# -eq 0 ] || shift
case $word in
"") build ;;
--no-bytecode) build --no-bytecode ;;
demo)
    build
    spool=tests/spools/demo.tar.gz
    show show queue --spool $spool
    show show queue --spool $spool --format table
    show show queue --spool $spool --summary
    ;;
check) check ;;
test)
    check
    build
    exec $VENV/bin/python -m pytest "$@"
    ;;
stress)
    need_tools test
    STRESS_ROUNDS=${STRESS_ROUNDS:-200} exec $VENV/bin/python -m pytest -s \
        tests/system_daemon/test_durability.py -k random "$@"
    ;;
bench)
    need_tools test
    (ARCHIVE=build/sources.pyz && build --no-bytecode)
    build
    bench=packaging/bench.py
    if [ "${1:-}" = daemon ]; then
        shift
        bench=packaging/bench_daemon.py
    fi
    exec $VENV/bin/python $bench "$@"
    ;;
clean)
    if grep -q " $PWD/build/" /proc/mounts 2>/dev/null; then
        fail "something is mounted below build: unmount it first"
    fi
    rm -rf build $ARCHIVE $ARCHIVE.sha256 .mypy_cache .ruff_cache .pytest_cache .hypothesis
    find smtpctl.py smtpd_core tests packaging -name __pycache__ -type d -prune -exec rm -rf {} +
    ;;
help | --help | -h) usage ;;
*) fail "$word is none of demo, check, test, stress, bench, clean, help" 2 ;;
esac
