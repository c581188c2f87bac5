// Package bench measures tokenkeep beside the machine's limits (a stat, a read,
// a durable write, AES-GCM alone) and beside other libraries for the same task. It
// contains only benchmarks:
//
//	go test -bench .                     # all of it, in Go's own form
//	go test -bench Replace/              # one topic
//	go test -bench . -benchtime 1x       # every benchmark once, to see that it works
//	go run ./cmd/report                  # all of it in interleaved rounds, as ratios, into RESULTS.md
//
// # How to read a name
//
// BenchmarkLoad/subject=tokenkeep/size=1MB measures tokenkeep;
// subject=limit is the least that the machine needs for the same work. The other
// subjects are named after their modules:
//
//   - msext: microsoft-authentication-extensions-for-go/cache with its plain
//     file. Its encrypted storage on Linux is libsecret, which needs cgo, a
//     library of C and a running keyring, so it is not measured here.
//   - 99designs: 99designs/keyring with its encrypted file, and the obvious glue:
//     Get for every Replace, Set for every Export. Its other backends are
//     keyrings of the operating system.
//
// A subject that is not durable is marked: msext and 99designs write in place and
// flush nothing.
//
// # What guards the figures
//
// Every benchmark has a check that does the work once more and checks its result.
// TestChecks proves that each check fails for a benchmark that does nothing.
package bench
