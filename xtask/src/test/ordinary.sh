# Shows the ordinary user the repository at its own path, and becomes that user.
#
# Runs as root in a mount namespace of its own, so whatever is mounted here goes with it. The paths
# compiled into the tests stay true although root's home is closed to others.
#   WORLD   the prepared folder: tree/ (the sources), passwd, group, home/, target/ (empty)
#   ROOT    the repository          TARGET  what cargo built
#   CLOSED  folders above them that others may not enter, one a line
#   USER_ID the user                FOLDER  where to run; "$@" is what to run
set -eu
mount --bind "$TARGET" "$WORLD/target"
printf '%s' "$CLOSED" | while IFS= read -r folder; do
    mount -t tmpfs -o mode=755 none "$folder"
done
mkdir -p "$ROOT"
mount --bind "$WORLD/tree" "$ROOT"
mkdir -p "$TARGET"
mount --bind "$WORLD/target" "$TARGET"
mount --bind "$WORLD/passwd" /etc/passwd
mount --bind "$WORLD/group" /etc/group
cd "$FOLDER"
exec setpriv --reuid "$USER_ID" --regid "$USER_ID" --clear-groups "$@"
