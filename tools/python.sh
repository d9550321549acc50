# For scripts to source: sets $python to a Python that is new enough, or ends with what to install.
for python in python3 python3.11 python3.12 python3.13; do
    "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && return 0
done
echo "expected Python 3.11, 3.12 or 3.13 on the PATH, got none; on Debian: apt-get install python3" >&2
exit 1
