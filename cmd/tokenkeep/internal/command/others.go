package command

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/lens"
	"github.com/tokenkeep/tokenkeep/internal/neighbour"
	"github.com/tokenkeep/tokenkeep/interop"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// azureCLI is what -other calls Azure CLI, after its command.
const azureCLI = "az"

func otherFlag(set *flag.FlagSet, o *options, what string) {
	set.StringVar(&o.other, "other", "", what+": az for Azure CLI, or the path of a plain `cache` of an MSAL library")
}

// other is the token cache of another program. No command changes it, or makes
// anything beside it.
type other struct {
	Program   string     `json:"program"` // az, or file for what was named by its path
	Location  string     `json:"location"`
	There     bool       `json:"there"`
	Encrypted bool       `json:"encrypted"`
	Changed   *time.Time `json:"changed,omitempty"`
	Error     string     `json:"error,omitempty"` // the class of the error if it cannot be read here

	store *interop.Store // of az, unless there is an error
	err   error
}

func (o *other) name() string {
	if o.Program == azureCLI {
		return "Azure CLI"
	}
	return filepath.Base(o.Location)
}

// findOther returns the cache that -other names.
func findOther(name string) (*other, error) {
	o := &other{Program: azureCLI}
	if name == azureCLI {
		var e *persistence.Error
		o.store, o.err = interop.AzureCLI(interop.Options{})
		switch {
		case o.err == nil:
			d := o.store.Describe()
			o.Location, o.Encrypted = d.Location, d.Encrypted
		case errors.As(o.err, &e) && e.Location != "":
			o.Location, o.Encrypted = e.Location, errors.Is(o.err, persistence.ErrUnavailable)
		default:
			return nil, o.err
		}
	} else {
		path, err := filepath.Abs(expandHome(name, isWindows))
		if err != nil {
			return nil, err
		}
		o.Program, o.Location = "file", path
	}
	if fi, err := os.Stat(o.Location); err == nil {
		changed := fi.ModTime().UTC().Truncate(time.Second)
		o.There, o.Changed = true, &changed
	} else if !errors.Is(err, fs.ErrNotExist) && o.err == nil {
		o.err = err
	}
	if o.There && o.err != nil {
		o.Error = classOf(o.err)
	}
	return o, nil
}

// others returns the cache of az, if it is there, and the one that -other names, in any
// case.
func (c *call) others() (all []*other, err error) {
	for _, name := range []string{azureCLI, c.other} {
		if name == "" || name == azureCLI && len(all) > 0 {
			continue
		}
		o, err := findOther(name)
		switch {
		case err != nil && name != c.other: // no home folder: no az either
		case err != nil:
			return nil, err
		case o.There || name == c.other:
			all = append(all, o)
		}
	}
	return all, nil
}

// theOther returns the cache that -other names, which must be there.
func (c *call) theOther() (*other, error) {
	o, err := findOther(c.other)
	if err != nil {
		return nil, err
	}
	if !o.There && o.err == nil {
		o.err = &refusal{fmt.Sprintf("%s has no token cache at %s", o.name(), o.Location), "Sign in with that program first, or give the right path.", persistence.ErrNotFound}
	}
	return o, o.err
}

// view returns the tokens in the cache. Of az's cache it returns those of az's own
// client.
func (o *other) view(ctx context.Context) ([]byte, error) {
	if o.store != nil {
		return o.store.Load(ctx)
	}
	return o.read(ctx)
}

func (o *other) read(ctx context.Context) ([]byte, error) {
	data, _, err := neighbour.Read(ctx, o.Location)
	if err != nil {
		return nil, &refusal{fmt.Sprintf("%s cannot be read: %v", o.Location, pathless(err)), persistence.Remedy(err), err}
	}
	return data, nil
}

func (o *other) String() string {
	switch {
	case !o.There:
		return "not there"
	case o.Encrypted:
		return "encrypted by its program"
	case o.err != nil:
		return cause(o.err)
	}
	return "NOT encrypted"
}

func checkOthers(ctx context.Context, x *doctorRun) checkResult {
	all, err := x.others()
	if err != nil {
		o := checkResult{Summary: "not known"}
		o.problem(finding{ID: "others.unknown", What: sentence(cause(err)), Remedy: persistence.Remedy(err), err: err})
		return o
	}
	var o checkResult
	var said []string
	for _, other := range all {
		before := len(o.Findings)
		state := x.checkOther(ctx, other, &o)
		if len(o.Findings) > before {
			state = "with a problem or a note"
		}
		said = append(said, other.name()+", "+state)
	}
	if o.Summary = strings.Join(said, "; "); o.Summary == "" {
		o.Summary = "no cache of theirs is there"
	}
	return o
}

// checkOther checks another program's cache. It adds what is wrong to o, and returns in
// a few words how the cache is.
func (x *doctorRun) checkOther(ctx context.Context, other *other, o *checkResult) (state string) {
	r := &otherResult{other.name(), o}
	switch {
	case !other.There && other.err == nil:
		return "not there"
	case other.Encrypted:
		o.Details = append(o.Details, r.name+" keeps its tokens encrypted, in "+other.Location+".")
		return "encrypted"
	case other.err != nil:
		r.failed("unreadable", other.err, cause(other.err)+".")
		return ""
	}
	x.checkOtherLock(ctx, other, r)
	isForeign := x.checkOtherOwner(other, r)
	ctx, cancel := context.WithTimeout(ctx, x.timeout)
	defer cancel()
	data, fi, err := neighbour.Read(ctx, other.Location)
	if isForeign && errors.Is(err, fs.ErrPermission) {
		return ""
	}
	if err != nil {
		r.failed("unreadable", err, fmt.Sprintf("%s cannot be read: %v.", other.Location, pathless(err)))
		return ""
	}
	if !isWindows && fi.Mode().Perm()&0o077 != 0 {
		r.problem("open", fmt.Sprintf("other users can open %s (mode %04o), and the tokens in it are not encrypted.", other.Location, fi.Mode().Perm()),
			"Close it:", "chmod 600 "+x.commandPath(other.Location))
	}
	if neighbour.Mounted(other.Location) {
		r.note("mounted", other.Location+" is mounted by itself, so programs that replace the file, as package interop does, cannot write it.", "Share the folder with the container, not the file alone.", "")
	}
	return checkOtherContent(other, data, r)
}

// otherResult adds findings about one other program's cache to a result.
type otherResult struct {
	name string // of the program
	of   *checkResult
}

func (r *otherResult) problem(id, what, remedy, command string) {
	r.of.problem(r.finding(id, what, remedy, command))
}

// failed adds a problem that err is the reason for.
func (r *otherResult) failed(id string, err error, what string) {
	f := r.finding(id, what, persistence.Remedy(err), "")
	f.err = err
	r.of.problem(f)
}

func (r *otherResult) note(id, what, remedy, command string) {
	r.of.note(r.finding(id, what, remedy, command))
}

func (r *otherResult) finding(id, what, remedy, command string) finding {
	return finding{ID: "others." + id, What: r.name + ": " + what, Remedy: remedy, Command: command}
}

// checkOtherOwner checks who owns the cache and, if it is Azure CLI's, its folder. It
// reports whether that is another user.
func (x *doctorRun) checkOtherOwner(other *other, r *otherResult) (isForeign bool) {
	places := []string{other.Location}
	if other.Program == azureCLI { // whose folder has nothing of other programs
		places = []string{filepath.Dir(other.Location), other.Location}
	}
	for _, place := range places {
		fi, err := os.Stat(place)
		if err != nil {
			continue
		}
		if who := foreign(fi); who != "" {
			r.problem("foreign", fmt.Sprintf("%s belongs to %s. Most likely a program was run with sudo once. Other programs of yours cannot write there.", place, who),
				"Give it back:", fmt.Sprintf(`sudo chown -R "$(id -u):$(id -g)" %s`, x.commandPath(place)))
			return true
		}
	}
	return false
}

// checkOtherContent checks what a cache that is not encrypted holds, and returns in a few
// words how it is, or "".
func checkOtherContent(other *other, data []byte, r *otherResult) (state string) {
	again, command := "Sign in again with the program that keeps it.", ""
	if other.Program == azureCLI {
		command = "az account clear; az login"
	}
	h, err := lens.Examine(data)
	switch {
	case err != nil:
		r.problem("damaged", "the cache is not one JSON object. Most likely a program was ended while it wrote it. A program with package interop that has read it before restores it with its next save.", again, command)
		return ""
	case len(data) == 0:
		r.note("empty", "the cache is an empty file: nobody is signed in, or a program was ended while it wrote it.", again, "")
		return ""
	}
	if h.Bad != nil {
		r.problem("shape", fmt.Sprintf("the section %s is not as MSAL libraries write it. MSAL.NET deletes such a file, and package interop does not write it.", strings.Join(h.Bad, ", ")), again, command)
	}
	if h.Null != nil {
		r.problem("null-section", fmt.Sprintf("the section %s is null. MSAL Python fails on that.", strings.Join(h.Null, ", ")), again, command)
	}
	if h.Usernames > 0 && other.Program == azureCLI {
		r.problem("usernames", `two accounts have one username. Azure CLI fails: "Found multiple accounts".`, again, command)
	}
	if h.Twice > 0 {
		r.note("twice", fmt.Sprintf("%s under a second key, as MSAL Go writes it without package interop. A program may go on with the older one.", areThere(h.Twice)), "If a program fails to refresh, sign in again with it.", "")
	}
	detail := fmt.Sprintf("%s: %s, %s.", r.name, other.Location, count(len(data), "byte"))
	state = "sound"
	if n := len(h.Clients); n > 0 {
		detail += fmt.Sprintf(" It has tokens of %s.", count(n, "client id"))
		state = "sound, with tokens of " + count(n, "client id")
	}
	r.of.Details = append(r.of.Details, detail)
	return state
}

// areThere returns "1 token is there", "2 tokens are there", …
func areThere(n int) string {
	if n == 1 {
		return "1 token is there"
	}
	return fmt.Sprintf("%d tokens are there", n)
}

// checkOtherLock checks the lock file beside the cache.
func (x *doctorRun) checkOtherLock(ctx context.Context, other *other, r *otherResult) {
	ctx, cancel := context.WithTimeout(ctx, x.timeout)
	defer cancel()
	path := neighbour.LockPath(other.Location)
	lock, err := neighbour.LockOf(ctx, other.Location)
	switch {
	case err != nil:
		r.failed("lock-unreadable", err, fmt.Sprintf("its lock file cannot be examined: %v.", pathless(err)))
		return
	case lock == nil:
		return
	}
	since := fmt.Sprintf("since %s (%s)", lock.Since.Local().Format(time.DateTime), ago(time.Since(lock.Since)))
	by := "by a process that it does not name"
	if lock.PID != 0 {
		by = fmt.Sprintf("by process %d, as %s makes it", lock.PID, lock.Writer)
	}
	what := fmt.Sprintf("its lock file has been there %s, made %s", since, by)
	switch {
	case time.Since(lock.Since) <= longHeld: // a save is under way
	case lock.Held:
		how := "has it locked"
		if isWindows {
			how = "keeps it open or locked"
		}
		r.problem("lock-stuck", what+", and a living process "+how+". Programs that want to save wait, or fail.", "Look for a program that hangs, and end it.", "")
	case lock.Alive:
		r.problem("lock-stuck", what+". A process with that number runs: the same one, or another one. MSAL Python waits five seconds for each save, and MSAL Node for ever.",
			"See what the process is. If it has nothing to do with the cache, remove the lock file:", x.removeCommand([]string{path}))
	default:
		r.problem("lock-left", what+". No process here has that number, and nobody has the file locked. MSAL Python waits five seconds for each save, and MSAL Node for ever.",
			"The next save of a program with package interop removes it. To do that now, if no container shares the folder:", x.removeCommand([]string{path}))
	}
}
