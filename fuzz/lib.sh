# What run-smoke and run-long share: sourced, not run. The caller has set `seconds`.

fuzz=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$fuzz"
# Leaks are not what these targets look for, and finding them takes ptrace, which containers often refuse.
export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_leaks=0}"
host=$(rustc +nightly -vV | sed -n 's/^host: //p')
target_dir=${CARGO_TARGET_DIR:-$fuzz/target}

dictionary() {
    case $1 in
        token_*) echo dict/token.dict ;;
        wire_* | broker_command) echo dict/cbor.dict ;;
        audit_path | kernel_events | broker_story | remote_stream) ;; # single bytes: there are no words
        *) echo dict/text.dict ;;
    esac
}

# Builds every target once.
build() {
    cargo +nightly fuzz build >&2
}

# run TARGET SECONDS CORPUS: what is found goes to CORPUS, which may be empty. Prints one line. A crash, a run over its
# memory or an input slower than 10 s is a finding: its input is left in artifacts/ and the status is not 0.
run() {
    local target=$1 seconds=$2 corpus=$3 log status=0 executions coverage dict found=()
    log=$(mktemp)
    dict=$(dictionary "$target")
    if [ -d "corpora/$target" ]; then found=("corpora/$target"); fi
    mkdir -p "artifacts/$target" "$corpus"
    "$target_dir/$host/release/$target" "$corpus" "seeds/$target" "${found[@]}" ${dict:+"-dict=$dict"} \
        -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=10 -print_final_stats=1 \
        -artifact_prefix="artifacts/$target/" >"$log" 2>&1 || status=$?
    executions=$(sed -n 's/^stat::number_of_executed_units: //p' "$log")
    coverage=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -1)
    if [ "$status" -eq 0 ] && [ "${executions:-0}" -eq 0 ]; then
        status=1 # nothing ran: that is no success
    fi
    printf '%-15s %12s executions %6s edges  %s\n' "$target" "${executions:-?}" "${coverage:-?}" \
        "$([ "$status" -eq 0 ] && echo ok || echo "FAILED (status $status)")"
    if [ "$status" -ne 0 ]; then tail -40 "$log" >&2; fi
    rm -f "$log"
    return "$status"
}
