//go:build linux

package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/cache"
	"golang.org/x/sys/unix"
)

// task is one piece of work to be measured.
type task struct {
	// run does it once.
	run func() error
	// check calls run and looks at what came of it. It fails for a run that
	// does nothing.
	check func(run func() error) error
	// settle is for work that is only as fast as it will be once settleTime has
	// gone by: it is called then. nil means that there is nothing to wait for.
	settle func() error
	// metrics are reported besides the time, by unit. May be nil.
	metrics func() map[string]float64
}

// settleTime is how long a file has to lie unchanged until a stat alone stands
// for its revision: two seconds, by a monotonic clock that only real time moves.
// The rows about an unchanged cache are about that steady state, so they wait
// for it, outside of what is timed.
const settleTime = 2200 * time.Millisecond

// subject is somebody who does the work of a topic.
type subject struct {
	name    string
	params  []param
	prepare func(tb testing.TB, p param) task
}

// param is what a subject is measured at: a size in bytes, a number of accounts
// or of processes.
type param struct {
	name string
	n    int
}

var (
	size10KB  = param{"size=10KB", 10 << 10}
	size100KB = param{"size=100KB", 100 << 10}
	size1MB   = param{"size=1MB", 1 << 20}
	size10MB  = param{"size=10MB", 10 << 20}
	sizes     = []param{size10KB, size100KB, size1MB, size10MB}
)

// topic is a benchmark: one kind of work, and who does it.
type topic struct {
	// settles says that its tasks are measured only after settleTime.
	settles  bool
	subjects []subject
}

// topics are all there is to measure, by the name of the benchmark.
var topics = map[string]topic{
	"Limit":   limitTopic,
	"Replace": replaceTopic,
	"Silent":  silentTopic,
	"Load":    loadTopic,
	"Save":    saveTopic,
	"Merge":   mergeTopic,
	"Export":  exportTopic,
	"Memory":  memoryTopic,
	"Lock":    lockTopic,
	"Open":    openTopic,
	"OpenAll": openAllTopic,
	"Start":   startTopic,
	"Argon2":  argon2Topic,
}

func BenchmarkLimit(b *testing.B)   { measure(b, limitTopic) }
func BenchmarkReplace(b *testing.B) { measure(b, replaceTopic) }
func BenchmarkSilent(b *testing.B)  { measure(b, silentTopic) }
func BenchmarkLoad(b *testing.B)    { measure(b, loadTopic) }
func BenchmarkSave(b *testing.B)    { measure(b, saveTopic) }
func BenchmarkMerge(b *testing.B)   { measure(b, mergeTopic) }
func BenchmarkExport(b *testing.B)  { measure(b, exportTopic) }
func BenchmarkMemory(b *testing.B)  { measure(b, memoryTopic) }
func BenchmarkLock(b *testing.B)    { measure(b, lockTopic) }
func BenchmarkOpen(b *testing.B)    { measure(b, openTopic) }
func BenchmarkOpenAll(b *testing.B) { measure(b, openAllTopic) }
func BenchmarkStart(b *testing.B)   { measure(b, startTopic) }
func BenchmarkArgon2(b *testing.B)  { measure(b, argon2Topic) }

// measure runs the subjects of a topic, those of one param one after the other,
// so that what is compared is measured under the same conditions.
func measure(b *testing.B, t topic) {
	settled := t.settle(b)
	each(t.subjects, func(s subject, p param) {
		b.Run("subject="+s.name+"/"+p.name, func(b *testing.B) {
			t, ok := settled[s.name+"/"+p.name]
			if !ok {
				t = s.prepare(b, p)
			}
			b.ReportAllocs()
			before := cpuTime()
			for b.Loop() {
				if err := t.run(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(cpuTime()-before)/float64(b.N), "cpu-ns/op")
			if err := t.check(t.run); err != nil {
				b.Fatal("the benchmark did not do its work: ", err)
			}
			if t.metrics != nil {
				for unit, n := range t.metrics() {
					b.ReportMetric(n, unit)
				}
			}
		})
	})
}

// each calls do for all subjects at their first param, then at the next one,
// and so on.
func each(subjects []subject, do func(subject, param)) {
	var params []param
	for _, s := range subjects {
		for _, p := range s.params {
			if !slices.Contains(params, p) {
				params = append(params, p)
			}
		}
	}
	for _, p := range params {
		for _, s := range subjects {
			if slices.Contains(s.params, p) {
				do(s, p)
			}
		}
	}
}

// settle prepares all tasks of a topic that has to settle; they share one wait.
func (t topic) settle(tb testing.TB) map[string]task {
	tb.Helper()
	if !t.settles {
		return nil
	}
	settled := map[string]task{}
	each(t.subjects, func(s subject, p param) { settled[s.name+"/"+p.name] = s.prepare(tb, p) })
	time.Sleep(settleTime)
	for name, t := range settled {
		if t.settle != nil {
			if err := t.settle(); err != nil {
				tb.Fatal(name, ": ", err)
			}
		}
	}
	return settled
}

// TestChecks proves that no benchmark can measure nothing: every check passes
// for the work and fails for none.
func TestChecks(t *testing.T) {
	for name, topic := range topics {
		t.Run(name, func(t *testing.T) {
			settled := topic.settle(t)
			each(topic.subjects, func(s subject, p param) {
				t.Run("subject="+s.name+"/"+p.name, func(t *testing.T) {
					task, ok := settled[s.name+"/"+p.name]
					if !ok {
						task = s.prepare(t, p)
					}
					if err := task.check(func() error { return nil }); err == nil {
						t.Error("the check passes although nothing was done")
					}
					if err := task.check(task.run); err != nil {
						t.Error("the check fails although the work was done: ", err)
					}
				})
			})
		})
	}
}

// cpuTime is what this process has used of the processors, with the collector's
// part. On a busy machine it tells more than the time that went by.
func cpuTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

var ctx = context.Background()

// started is when all tokens were issued.
var started = time.Now().Unix()

// tokens returns a token cache of about n bytes, as MSAL writes it: accounts
// with an access token of 2 KB each. generation makes the secrets differ from
// those of another generation.
func tokens(n, generation int) []byte {
	const (
		host = "login.microsoftonline.com"
		each = 2675 // bytes of an account and its token
	)
	secret := strings.Repeat("eyJ0eXAiOiJKV1QiLCJub25jZSI6IkFC", 52)
	b := make([]byte, 0, n+2*each)
	b = append(b, `{"AccessToken":{`...)
	for i := range (n + each - 1) / each {
		b = fmt.Appendf(b, `"%[1]s-%[2]s-accesstoken-client-%[3]s-user.read":{"home_account_id":"%[1]s","environment":"%[2]s","realm":"%[3]s",`+
			`"credential_type":"AccessToken","client_id":"client","secret":"%[4]d-%[5]d-%[6]s","target":"user.read openid profile",`+
			`"cached_at":"%[7]d","expires_on":"%[8]d","extended_expires_on":"%[8]d","token_type":"Bearer"},`,
			home(i), host, tenant, generation, i, secret, started, started+3600)
	}
	b = append(b[:len(b)-1], `},"Account":{`...)
	for i := range (n + each - 1) / each {
		b = fmt.Appendf(b, `"%[1]s-%[2]s-%[3]s":{"home_account_id":"%[1]s","environment":"%[2]s","realm":"%[3]s",`+
			`"local_account_id":"%[4]s","username":"user%[5]d@contoso.example","authority_type":"MSSTS"},`,
			home(i), host, tenant, home(i)[:36], i)
	}
	return append(b[:len(b)-1], "}}"...)
}

// home is the id of the i-th account of tokens.
func home(i int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d.%s", i, tenant) }

// The hints of a client that refreshes the token of the account that changes,
// here, on our side.
var (
	replaceHints = cache.ReplaceHints{PartitionKey: home(3)}
	exportHints  = cache.ExportHints{PartitionKey: home(3)}
)

// memory is an in-memory cache that does no work of its own, so that what is
// measured is the storage.
type memory struct {
	data  []byte
	given int // how often it was given data
}

func (m *memory) Unmarshal(b []byte) error {
	m.data = b
	m.given++
	return nil
}

func (m *memory) Marshal() ([]byte, error) { return m.data, nil }

var _ cache.Serializer = (*memory)(nil)

// expect fails unless got is want.
func expect(what string, got, want []byte) error {
	if !bytes.Equal(got, want) {
		return fmt.Errorf("%s: %d bytes that are not the %d expected", what, len(got), len(want))
	}
	return nil
}

// removed removes the file first, so that a run that does not write it again is
// found out.
func removed(path string, run func() error) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return run()
}

// must returns v, or ends the test.
func must[T any](v T, err error) func(testing.TB) T {
	return func(tb testing.TB) T {
		tb.Helper()
		ok(tb, err)
		return v
	}
}

func ok(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
