# Counts what a suite said: passed, failed, not applicable. Reads valkey-tests.reasons, then the suite's log.
function settle(   reason, i) {
  if (entry == "") return
  reason = ""
  for (i = 1; i <= patterns && reason == ""; i++) {
    if (entry ~ pattern[i] && (where[i] == "any" || where[i] == suite)) reason = why[i]
  }
  if (reason == "") {
    failed++
    print entry "\n" > failures
  } else {
    other++
    print reason "\t" first > explained
  }
  entry = ""
}
BEGIN {
  passed = failed = other = 0
  tags["needs:debug"] = "DEBUG"
  tags["needs:repl"] = "a replica, or what it is sent"
  tags["needs:save"] = "saving to a disk"
  tags["needs:reset"] = "a server that is restarted"
  tags["needs:config-maxmemory"] = "CONFIG SET maxmemory and its like: the operator's work"
  tags["external server"] = "skipped by Valkey for every server that its tests didn't start"
  tags["singledb"] = "several databases"
  tags["cluster mode"] = "skipped by Valkey for clusters: keys in different slots"
  tags["large memory"] = "gigabytes of memory (--large-memory)"
  printf "" > failures
  printf "" > explained
}
FILENAME != log_path {
  if ($0 != "" && $0 !~ /^#/) {
    patterns++
    where[patterns] = $1 == "skip" ? "any" : $1
    pattern[patterns] = $2
    why[patterns] = $3
    if ($1 == "skip") skipped[++skips] = patterns
  }
  next
}
/^\[(ok|err|skip|ignore|testing|ready|exception|[0-9]+\/[0-9]+ done)\]/ || /^\[TIMEOUT\]/ { settle() }
/^\[ok\]/ { passed++; next }
/^\[(err|exception)\]|^\[TIMEOUT\]/ { entry = first = $0; next }
/^\[skip\]/ {
  other++
  for (i = 1; i <= skips; i++) {
    if (substr($0, 9) ~ pattern[skipped[i]]) { print why[skipped[i]] "\t" $0 > explained; break }
  }
  next
}
/^\[ignore\]/ {
  other++
  reason = "other"
  for (tag in tags) {
    if (index($0, tag)) reason = tags[tag]
  }
  print reason "\t" $0 > explained
  next
}
entry != "" { entry = entry "\n" $0 }
END {
  settle()
  print passed, failed, other
}
