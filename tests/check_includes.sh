#!/usr/bin/env bash
# Checks the one direction of dependency: a file includes only its own folder and those before it, and siblings never
# include each other. Names every include that breaks the rule; exit code 1 if there is one.
#   tests/check_includes.sh [project root]
set -euo pipefail
cd "${1:-$(dirname "${BASH_SOURCE[0]}")/..}"

declare -A may_include=(
  [base]="base"
  [tensor]="base tensor"
  [data]="base tensor data"
  [comm]="base tensor comm"
  [parallel]="base tensor comm parallel"
  [model]="base tensor comm parallel model"
  [tasks]="base tensor data comm parallel model tasks"
  [trainer]="base tensor data comm parallel model tasks trainer"
  [inference]="base tensor comm parallel model inference"
  [launch]="base tensor data comm parallel model tasks trainer inference launch"
)

broken=0
checked=0
for folder in "${!may_include[@]}"; do
  while IFS=: read -r file line text; do
    checked=$((checked + 1))
    included=${text#*\"}
    included=${included%%\"*}
    if [[ $included == */* ]]; then
      target=${included%%/*}
      [[ " ${may_include[$folder]} " == *" $target "* ]] && continue
      reason="$folder/ may include only: ${may_include[$folder]}"
    else
      reason="an include names its folder: \"$folder/...\""
    fi
    echo "$file:$line: #include \"$included\": $reason"
    broken=1
  done < <(grep -rnE --include='*.h' --include='*.cc' --include='*.cu' --include='*.cuh' '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' "$folder" || true)
done
# A check that found nothing to check has looked in the wrong place.
if ((checked < 100)); then
  echo "check_includes: only $checked includes under $PWD"
  exit 1
fi
((broken)) || echo "check_includes: $checked includes, all in the direction of dependency"
exit "$broken"
