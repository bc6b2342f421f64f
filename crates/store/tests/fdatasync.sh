#!/bin/sh
# Checks with strace that every synced acknowledgement was preceded by an fdatasync of the
# write-ahead log that began after the last write to it, and that written ones wait for none.
#
#   crates/store/tests/fdatasync.sh PATH_OF_append_bench
#
# PATH is what `cargo build -p bedplate-store --example append_bench` makes. Needs strace.
set -eu
program=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
strace -f -y -e trace=pwrite64,fdatasync,write -o "$dir/trace" \
    "$program" "$dir" --acks --samples 200 > "$dir/acks"
awk '
    # A call that another thread interrupts is shown in two lines; its result is in the second.
    /unfinished/ && /log\.db-wal/ && /fdatasync/ { began[$1] = writes; next }
    /fdatasync resumed/ && / = 0$/ && ($1 in began) { synced = began[$1]; syncs++; next }
    /pwrite64\(.*log\.db-wal/ { writes++ }
    /fdatasync\(.*log\.db-wal/ && / = 0$/ { synced = writes; syncs++ }
    /"ack synced/ { acks++; if (synced < writes) { late++ } }
    /"ack written/ { written++; if (synced < writes) { unsynced++ } }
    END {
        printf "%d synced acknowledgements, %d before their fdatasync; %d fdatasyncs; ", acks, late, syncs
        printf "%d written acknowledgements, %d without waiting for one\n", written, unsynced
        exit !(acks == 100 && late == 0 && syncs >= acks && written == 100 && unsynced == written)
    }
' "$dir/trace"
