#!/usr/bin/env bash
# Counts the syncs behind each acknowledged put: three nodes under strace, one client that puts one key after the
# other. Exit status 1 if a put was acknowledged without a majority of nodes having synced its log entry.
#
#   storage/docs/count_syncs.sh [PUTS]      (needs strace; programs are taken from ${BIN:-target/release})
set -euo pipefail

puts=${1:-200}
bin=${BIN:-target/release}
dir=$(mktemp -d)
tracers=()

stop() {
    local tracer
    for tracer in "${tracers[@]}"; do
        # The node is strace's only child; strace ends with it.
        kill -TERM "$(pgrep -P "$tracer")" 2>/dev/null || true
        wait "$tracer" || true
    done
    tracers=()
}
trap 'stop; rm -rf "$dir"' EXIT

{
    printf 'cluster_id = "syncs"\ndata_dir = "%s/node-{id}"\n' "$dir"
    for id in 1 2 3; do
        printf '[[node]]\nid = %d\nraft_addr = "127.0.37.%d:7101"\nclient_addr = "127.0.37.%d:7102"\n' "$id" "$id" "$id"
    done
} >"$dir/cluster.toml"

for id in 1 2 3; do
    strace -f -y -ttt -T -e trace=fsync,fdatasync -o "$dir/trace-$id" \
        "$bin/kv-server" --config "$dir/cluster.toml" --id "$id" 2>"$dir/log-$id" &
    tracers+=($!)
done

export CLERK_ENDPOINTS=127.0.37.1:7102,127.0.37.2:7102,127.0.37.3:7102
"$bin/clerk" --timeout 30s put warm up >/dev/null
for ((put = 1; put <= puts; put++)); do
    start=$(date +%s.%N)
    "$bin/clerk" put "key-$put" "value-$put" >/dev/null
    printf '%s %s\n' "$start" "$(date +%s.%N)" >>"$dir/puts"
done
stop

# One line a completed sync of the log: when it completed, and the node. A call that another thread's interrupts
# stands on two lines, of which the first names the file and the second has the time of its end.
for id in 1 2 3; do
    awk -v id="$id" '
        / resumed>/ { if (file[$1]) print $2, id; file[$1] = 0; next }
        !/(sled\/db|journal\/[01])>/ { next }
        /<unfinished/ { file[$1] = 1; next }
        / = 0 </ { gsub(/[<>]/, "", $NF); printf "%.6f %d\n", $2 + $NF, id }
    ' "$dir/trace-$id"
done | sort -n >"$dir/syncs"

# `clerk put` writes two entries, one after the other: it opens a session, and it puts. Both need a majority, so
# four syncs on two nodes must have completed before it is acknowledged.
awk -v all="$(wc -l <"$dir/syncs")" '
    NR == FNR { time[NR] = $1; node[NR] = $2; count = NR; next }
    {
        split("", by_node); syncs = nodes = 0
        for (at = 1; at <= count; at++) if (time[at] > $1 && time[at] < $2) {
            syncs++
            if (!by_node[node[at]]++) nodes++
        }
        puts++
        if (syncs < 4 || nodes < 2) skipped++
        sum += syncs
        if (puts == 1 || syncs < least) least = syncs
        if (puts == 1 || nodes < least_nodes) least_nodes = nodes
    }
    END {
        printf "%d puts acknowledged one after the other, %d log entries\n", puts, 2 * puts
        printf "syncs of the log completed between start and acknowledgement: %.2f a put, at least %d, on at least %d nodes\n",
            sum / puts, least, least_nodes
        printf "puts with fewer than two syncs an entry, or on fewer than two nodes: %d\n", skipped
        exit skipped > 0
    }
' "$dir/syncs" "$dir/puts"
