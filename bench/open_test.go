//go:build linux

package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// Open with a cache in place. The keyring is a stand-in that takes readTime for
// a read and serves one at a time, as the keyrings of desktops do; it is in this
// process, or behind a socket where there are many processes. The limit is one
// read of it.

var openTopic = topic{subjects: []subject{
	{"limit", []param{{"keyring=2ms", 1}}, keyringRead},
	{"tokenkeep", []param{{"keyring=2ms", 1}}, openCache},
}}

// OpenAll is 100 processes that are let go at once: until the last one has its
// key, or its cache opened and loaded.
var openAllTopic = topic{subjects: []subject{
	{"limit", []param{{"processes=100", 100}}, openAll("read keyring")},
	{"tokenkeep", []param{{"processes=100", 100}}, openAll("open")},
}}

const readTime = 2 * time.Millisecond

// desktop is a keyring in this process.
type desktop struct {
	mu    sync.Mutex
	items map[string]string
	reads int
}

func newDesktop() *desktop { return &desktop{items: map[string]string{}} }

func (d *desktop) Get(_ context.Context, service, user string) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reads++
	time.Sleep(readTime)
	secret, ok := d.items[service+"\t"+user]
	if !ok {
		return "", persistence.ErrNotFound
	}
	return secret, nil
}

func (d *desktop) Set(_ context.Context, service, user, secret string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.items[service+"\t"+user] = secret
	return nil
}

func (d *desktop) Delete(_ context.Context, service, user string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.items, service+"\t"+user)
	return nil
}

// item returns the one item that there is.
func (d *desktop) item() (service, user string) {
	for name := range d.items {
		service, user, _ = strings.Cut(name, "\t")
	}
	return service, user
}

// newCache makes a cache in dir, and returns its keyring and what it holds.
func newCache(tb testing.TB, dir string) (*desktop, []byte) {
	tb.Helper()
	d, data := newDesktop(), tokens(size10KB.n, 1)
	c := must(tokenkeep.Open(ctx, tokenkeep.Config{Name: "bench", Dir: dir, Keyring: d}))(tb)
	ok(tb, c.Export(ctx, &memory{data: data}, exportHints))
	if len(d.items) != 1 {
		tb.Fatal("the keyring has ", len(d.items), " items")
	}
	return d, data
}

func keyringRead(tb testing.TB, _ param) task {
	d, _ := newCache(tb, tb.TempDir())
	service, user := d.item()
	var got string
	return task{
		run: func() (err error) { got, err = d.Get(ctx, service, user); return err },
		check: func(run func() error) error {
			got = ""
			if err := run(); err != nil {
				return err
			}
			if got == "" {
				return errors.New("no key")
			}
			return nil
		},
	}
}

func openCache(tb testing.TB, _ param) task {
	dir := tb.TempDir()
	d, want := newCache(tb, dir)
	var c *persistence.Cache
	d.reads = 0
	opens := 0
	return task{
		run: func() (err error) {
			opens++
			c, err = tokenkeep.Open(ctx, tokenkeep.Config{Name: "bench", Dir: dir, Keyring: d})
			return err
		},
		check: func(run func() error) error {
			c = nil
			if err := run(); err != nil {
				return err
			}
			if c == nil {
				return errors.New("nothing was opened")
			}
			got, err := c.Load(ctx)
			if err != nil {
				return err
			}
			return expect("loaded", got, want)
		},
		metrics: func() map[string]float64 {
			return map[string]float64{"keyring-reads/op": float64(d.reads) / float64(opens)}
		},
	}
}

func openAll(do string) func(testing.TB, param) task {
	return func(tb testing.TB, p param) task {
		dir := tb.TempDir()
		d, want := newCache(tb, dir)
		socket := serve(tb, d)
		service, user := d.item()
		var lasted time.Duration
		done := 0
		return task{
			run: func() error {
				d.reads, done = 0, 0
				all, err := startAll(p.n, order{Do: do, Path: dir, Key: strings.Join([]string{socket, service, user}, "\t")})
				if err != nil {
					return err
				}
				begun := time.Now()
				for _, c := range all {
					err = errors.Join(err, c.goOn())
				}
				var last time.Time
				for _, c := range all {
					var r opened
					err = errors.Join(err, c.report(&r))
					if r.At.After(last) {
						last = r.At
					}
					if do == "open" && r.Data == string(want) || do != "open" && r.Data != "" {
						done++
					}
				}
				lasted = last.Sub(begun)
				return err
			},
			check: func(run func() error) error {
				d.reads, done = 0, 0
				if err := run(); err != nil {
					return err
				}
				if done != p.n || d.reads < p.n {
					return fmt.Errorf("%d of %d processes got what they came for, in %d reads of the keyring", done, p.n, d.reads)
				}
				return nil
			},
			metrics: func() map[string]float64 {
				return map[string]float64{"all-ns": float64(lasted), "keyring-reads": float64(d.reads)}
			},
		}
	}
}

// opened is a process's report.
type opened struct {
	At   time.Time
	Data string
}

func openChild(o order) (func() (any, error), error) {
	socket, _, _ := strings.Cut(o.Key, "\t")
	return func() (any, error) {
		c, err := tokenkeep.Open(ctx, tokenkeep.Config{Name: "bench", Dir: o.Path, Keyring: remote(socket)})
		if err != nil {
			return nil, err
		}
		at := time.Now()
		data, err := c.Load(ctx)
		return opened{at, string(data)}, err
	}, nil
}

func readChild(o order) (func() (any, error), error) {
	f := strings.Split(o.Key, "\t")
	return func() (any, error) {
		key, err := remote(f[0]).Get(ctx, f[1], f[2])
		return opened{time.Now(), key}, err
	}, nil
}

// serve lets other processes read the keyring, one read for each connection.
func serve(tb testing.TB, d *desktop) (socket string) {
	tb.Helper()
	dir := must(os.MkdirTemp("", "tk"))(tb) // a socket's path must be short
	tb.Cleanup(func() { os.RemoveAll(dir) })
	socket = filepath.Join(dir, "s")
	l := must(net.Listen("unix", socket))(tb)
	tb.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				name, err := bufio.NewReader(conn).ReadString('\n')
				if err != nil {
					return
				}
				service, user, _ := strings.Cut(strings.TrimSuffix(name, "\n"), "\t")
				if secret, err := d.Get(ctx, service, user); err == nil {
					io.WriteString(conn, secret)
				}
			}()
		}
	}()
	return socket
}

// remote is the keyring of another process; it can be read.
type remote string

func (r remote) Get(_ context.Context, service, user string) (string, error) {
	conn, err := net.Dial("unix", string(r))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "%s\t%s\n", service, user); err != nil {
		return "", err
	}
	secret, err := io.ReadAll(conn)
	if err == nil && len(secret) == 0 {
		err = persistence.ErrNotFound
	}
	return string(secret), err
}

func (r remote) Set(context.Context, string, string, string) error {
	return errors.New("nobody was to write into this keyring")
}

func (r remote) Delete(context.Context, string, string) error {
	return errors.New("nobody was to delete from this keyring")
}
