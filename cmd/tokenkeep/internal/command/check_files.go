package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"time"

	"github.com/tokenkeep/tokenkeep/encrypted"
	"github.com/tokenkeep/tokenkeep/internal/filelock"
	"github.com/tokenkeep/tokenkeep/internal/layout"
	"github.com/tokenkeep/tokenkeep/internal/securefile"
	"github.com/tokenkeep/tokenkeep/persistence"
)

func checkFolder(_ context.Context, x *doctorRun) checkResult {
	dir, err := x.folder()
	if err != nil {
		o := checkResult{Summary: "not known"}
		o.problem(finding{ID: "folder.unknown", What: sentence(cause(err)), Remedy: persistence.Remedy(err), err: err})
		return o
	}
	fi, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		o := checkResult{Summary: dir + " does not exist yet"}
		if err := writable(dir); err != nil {
			o.problem(finding{ID: "folder.cannot-be-made", What: fmt.Sprintf("%s cannot be made: %v.", dir, pathless(err)),
				Remedy: "Make it, and give it to the user who runs the programs.", Command: x.onUnix("mkdir -p -m 700 " + x.commandPath(dir)), err: err})
		}
		return o
	}
	if err != nil {
		o := checkResult{Summary: dir}
		o.problem(finding{ID: "folder.unreadable", What: fmt.Sprintf("%s cannot be examined: %v.", dir, pathless(err)), Remedy: "Make sure that it belongs to you.", err: err})
		return o
	}
	if !fi.IsDir() {
		o := checkResult{Summary: dir}
		o.problem(finding{ID: "folder.not-a-folder", What: dir + " is not a folder.", Remedy: "Move it away, or use another folder."})
		return o
	}
	o := checkResult{Summary: dir + modeWords(fi)}
	restricted := cmp.Or(x.onUnix("chmod 700 "+x.commandPath(dir)), x.closeFile(dir, "(OI)(CI)F"))
	giveBack := fmt.Sprintf(`sudo chown -R "$(id -u):$(id -g)" %s`, x.commandPath(dir))
	if who := foreign(fi); who != "" {
		o.problem(finding{ID: "folder.foreign", What: fmt.Sprintf("The folder belongs to %s. Programs cannot keep anything there.", who), Remedy: "Give it back:", Command: giveBack})
	} else if err := securefile.CheckDir(dir); err != nil {
		o.problem(finding{ID: "folder.open", What: sentence(err.Error()) + " Anybody who can write it can replace your files.", Remedy: "Close it:", Command: restricted})
	} else if who, err := securefile.OtherWriters(dir); err == nil && who != "" {
		o.problem(finding{ID: "folder.open", What: fmt.Sprintf("By the access list of the folder, %s can write it. Anybody who can write it can replace your files.", who),
			Remedy: "Close it:", Command: x.closeFile(dir, "(OI)(CI)F")})
	} else if err := writable(dir); err != nil {
		o.problem(finding{ID: "folder.read-only", What: fmt.Sprintf("The folder cannot be written: %v.", pathless(err)), Remedy: "Make it writable:", Command: restricted, err: err})
	}
	all, err := x.caches()
	if err != nil {
		o.problem(finding{ID: "folder.unreadable", What: sentence(err.Error()), err: err})
		return o
	}
	x.checkModes(all, giveBack, &o)
	return o
}

// checkModes checks whose the caches' files are, and who can open them. giveBack is the
// command that gives the folder to this user.
func (x *doctorRun) checkModes(all []*files, giveBack string, o *checkResult) {
	var strangers, open []string
	who := ""
	for _, f := range all {
		if reader, err := securefile.OtherReaders(f.plaintextPath()); err == nil && reader != "" {
			o.problem(finding{ID: "folder.open-files", What: fmt.Sprintf("By its access list, %s can read %s, which is not encrypted.", reader, filepath.Base(f.plaintextPath())),
				Remedy: "Close it:", Command: x.closeFile(f.plaintextPath(), "F")})
		}
		for _, path := range f.all() {
			fi, err := os.Lstat(path)
			if err != nil {
				continue
			}
			if w := foreign(fi); w != "" {
				strangers, who = append(strangers, path), w
			} else if !isWindows && fi.Mode().IsRegular() && fi.Mode().Perm()&0o077 != 0 {
				open = append(open, path)
			}
		}
	}
	if strangers != nil {
		o.problem(finding{ID: "folder.foreign-files", What: fmt.Sprintf("%s in it: %s. Most likely a program was run with sudo once.", belong(len(strangers), who), base(strangers)),
			Remedy: "Give them back, and run programs that sign you in without sudo:", Command: giveBack})
	}
	if open != nil {
		o.problem(finding{ID: "folder.open-files", What: fmt.Sprintf("Other users can open %s: %s.", count(len(open), "file"), base(open)), Remedy: "Close them:", Command: "chmod 600 " + x.quoteAll(open)})
	}
}

// onUnix returns the command, or "" on Windows, whose shells do not know it.
func (c *call) onUnix(command string) string {
	if isWindows {
		return ""
	}
	return command
}

// closeFile returns the command on Windows that admits only the user, the system and the
// administrators, with those rights.
func (c *call) closeFile(path, rights string) string {
	rest := " /inheritance:r /remove:g"
	for _, group := range []string{"1-0", "5-2", "5-4", "5-7", "5-11", "5-32-545", "5-32-546"} { // all that securefile.OtherReaders names, but Domain Users
		rest += ` "*S-1-` + group + `"`
	}
	who := "%USERNAME%"
	if u, err := user.Current(); err == nil && strings.HasPrefix(u.Uid, "S-") {
		who = "*" + u.Uid // a name may have a space
	}
	rest += " /grant:r"
	for _, who := range []string{who, "*S-1-5-18", "*S-1-5-32-544"} {
		rest += ` "` + who + ":" + rights + `"`
	}
	return c.windowsCommand("icacls", []string{path}, rest)
}

// windowsCommand returns a command on files and folders that works in PowerShell and in
// cmd. PowerShell expands no %…%, and takes away the quotes around what has no space in it.
// So if the home folder's path has one, cmd would take it for two paths. Its cd does not.
func (c *call) windowsCommand(program string, paths []string, rest string) string {
	var quoted, below []string
	for _, path := range paths {
		p := c.pathWithHome(path, "%USERPROFILE%")
		quoted = append(quoted, p)
		if in, ok := strings.CutPrefix(strings.Trim(p, `"`), `%USERPROFILE%\`); ok && isPlainPath(in) {
			below = append(below, in)
		}
	}
	if len(below) == len(paths) {
		return `cmd /c "cd /d %USERPROFILE% && ` + program + " " + strings.Join(below, " ") + strings.ReplaceAll(rest, `"`, "") + `"`
	}
	return "cmd /c " + program + " " + strings.Join(quoted, " ") + rest
}

// isPlainPath reports whether both shells take a path as it stands.
func isPlainPath(path string) bool {
	return !strings.ContainsFunc(path, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(`\._-`, r))
	})
}

// belong returns "1 file belongs to root", "2 files belong to root", …
func belong(n int, who string) string {
	if n == 1 {
		return "1 file belongs to " + who
	}
	return fmt.Sprintf("%d files belong to %s", n, who)
}

func base(paths []string) string {
	var names []string
	for _, p := range paths {
		names = append(names, filepath.Base(p))
	}
	return strings.Join(names, ", ")
}

func (c *call) quoteAll(paths []string) string {
	var quoted []string
	for _, p := range paths {
		quoted = append(quoted, c.commandPath(p))
	}
	return strings.Join(quoted, " ")
}

// all returns the paths of the cache's files.
func (f *files) all() (paths []string) {
	if f.encrypted {
		paths = append(paths, f.encryptedPath())
	}
	if f.plaintext {
		paths = append(paths, f.plaintextPath())
	}
	for _, names := range [][]string{f.locks, f.temporary, f.aside} {
		for _, n := range names {
			paths = append(paths, filepath.Join(f.dir, n))
		}
	}
	return paths
}

func checkCaches(ctx context.Context, x *doctorRun) checkResult {
	all, err := x.caches()
	if err != nil {
		o := checkResult{Summary: "cannot be read"}
		o.problem(finding{ID: "caches.unreadable", What: sentence(err.Error()), Remedy: "See the check of the folder.", err: err})
		return o
	}
	var o checkResult
	n, bad := 0, 0
	for _, f := range all {
		if !f.stored() {
			continue
		}
		n++
		before := len(o.Findings)
		x.checkCache(ctx, f, &o)
		if len(o.Findings) > before {
			bad++
		}
	}
	switch {
	case n == 0:
		o.Summary = "none yet"
	case bad == 0:
		o.Summary = count(n, "cache") + ", sound"
	default:
		o.Summary = fmt.Sprintf("%s, %d with a problem or a note", count(n, "cache"), bad)
	}
	return o
}

// checkCache reads the cache and adds what is wrong with it to o.
func (x *doctorRun) checkCache(ctx context.Context, f *files, o *checkResult) {
	ctx, cancel := context.WithTimeout(ctx, x.timeout)
	defer cancel()
	k := f.storage(ctx)
	clear := x.inFolder("tokenkeep clear " + f.name)
	var why error
	fail := func(id, what, remedy, command string) {
		o.problem(finding{ID: "caches." + id, Cache: f.name, What: f.name + ": " + what, Remedy: remedy, Command: command, err: why})
	}
	signInAgain := "Its program sets the file aside at its next start, and you sign in again. To remove the file now:"
	if k.err == nil && k.Backend == "encrypted" {
		switch k.KeySource {
		case storePassphrase:
			if x.passphraseEnv == "" {
				o.Details = append(o.Details, f.name+" is encrypted with a passphrase, for which the doctor does not ask.")
				return
			}
		case storeKeyring, storeDPAPI, storeKernel:
		default:
			o.Details = append(o.Details, f.name+": "+k.String()+".")
			return
		}
	}
	from, err := x.read(ctx, f, k)
	why = err
	switch {
	case err == nil:
		if _, parseErr := parseCache(from.data); parseErr != nil && !f.encrypted {
			fail("damaged", "the plaintext file is damaged.", signInAgain, clear)
			return
		}
		o.Details = append(o.Details, f.name+" is kept "+f.storageIn(ctx, from.store).String()+".")
	case errors.Is(err, persistence.ErrCorrupt):
		fail("damaged", cause(err)+".", signInAgain, clear)
	case errors.Is(err, persistence.ErrKeyMissing):
		what := "the keyring is open and does not have the key. Perhaps it was created again or restored from an older backup. Without the key the file cannot be read."
		if searched := x.keychains(ctx); searched != "" && k.KeySource == storeKeyring {
			what += " Searched were " + searched + "."
		}
		if k.KeySource == storeKernel {
			what = "the key is gone: the kernel's keyring keeps it until the machine restarts, or for three days without use."
		}
		fail("key-missing", what, signInAgain, clear)
	case errors.Is(err, persistence.ErrUnsupportedVersion):
		fail("newer", "a newer version of tokenkeep wrote the file. It is sound.", "Update the programs that use it, and this one:", "go install github.com/tokenkeep/tokenkeep/cmd/tokenkeep@latest")
	case errors.Is(err, persistence.ErrWrongKey):
		fail("wrong-key", "the key or passphrase does not match this file.", persistence.Remedy(err), "")
	case k.KeySource == storeKeyring && x.keyring(ctx).situation != "":
		o.note(finding{ID: "caches.waiting", Cache: f.name, What: f.name + " has its key in the keyring, which cannot be reached now. Nothing is lost: its program works again as soon as the keyring does."})
	default:
		fail("unreadable", cause(err)+".", persistence.Remedy(err), "")
	}
}

// read reads the cache, but does not ask a keyring that has already failed.
func (x *doctorRun) read(ctx context.Context, f *files, k storage) (*opened, error) {
	if k.err != nil {
		return nil, k.err
	}
	if k.Backend == "encrypted" && k.KeySource == storeKeyring {
		if state := x.keyring(ctx); state.situation != "" {
			return nil, state.err
		}
	}
	return x.open(ctx, f)
}

// longHeld is how long a lock may be held before that is a problem: as long as programs
// wait for one by default.
const longHeld = persistence.DefaultTimeout

func checkLocks(ctx context.Context, x *doctorRun) checkResult {
	all, err := x.caches()
	if err != nil {
		return checkResult{Summary: "cannot be read", Status: statusNote}
	}
	var o checkResult
	held := 0
	for _, f := range all {
		for _, n := range f.locks {
			path := filepath.Join(f.dir, n)
			is, err := x.lockHeld(ctx, path)
			if err != nil {
				o.note(finding{ID: "locks.unreadable", Cache: f.name, What: sentence(fmt.Sprintf("cannot find out whether %s is locked: %v", n, pathless(err))), err: err})
				continue
			}
			if !is || layout.Parse(n).Queue { // a process in the turnstile waits for the lock
				continue
			}
			held++
			x.holder(f, path, &o)
		}
	}
	o.Summary = "none is held"
	if held > 0 {
		o.Summary = fmt.Sprintf("%d held", held)
	}
	return o
}

// lockHeld reports whether somebody has the file at path locked.
func (x *doctorRun) lockHeld(ctx context.Context, path string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, x.timeout)
	defer cancel()
	return lockHeld(ctx, path)
}

// holder adds to o who has the lock at path.
func (x *doctorRun) holder(f *files, path string, o *checkResult) {
	pid, since, ok := filelock.Holder(path)
	if !ok {
		o.note(finding{ID: "locks.held", Cache: f.name, What: f.name + " is locked. The lock file does not say by which process."})
		return
	}
	what := fmt.Sprintf("%s is locked by process %d, since %s (%s)", f.name, pid, since.Local().Format(time.DateTime), ago(time.Since(since)))
	stuck := time.Since(since) > longHeld
	certain := holdsLock(pid, path)
	switch {
	case !certain && !processAlive(pid):
		o.note(finding{ID: "locks.unseen", Cache: f.name, What: what + ". No process here has that number.", Remedy: "Its process runs in another container or on another machine, or has just ended. If the lock stays, look there for a program that hangs."})
	case !stuck:
		o.note(finding{ID: "locks.held", Cache: f.name, What: what + ". This is normal unless it lasts."})
	case certain:
		o.problem(finding{ID: "locks.stuck", Cache: f.name, What: what + ". Programs that want to save wait for the lock, and give up in the end.",
			Remedy: "See what the process is, and end it if it hangs:", Command: fmt.Sprintf("ps -p %d; kill %d", pid, pid)})
	default:
		o.problem(finding{ID: "locks.stuck", Cache: f.name, What: what + ". Programs that want to save wait for the lock, and give up in the end.",
			Remedy: "The process with that number here may be another one: the holder of the lock may run in a container, on another machine or for another user. Look for a program that hangs, and end it."})
	}
}

func checkLeftovers(ctx context.Context, x *doctorRun) checkResult {
	all, err := x.caches()
	if err != nil {
		return checkResult{Summary: "cannot be read", Status: statusNote}
	}
	var o checkResult
	for _, f := range all {
		x.checkLeft(ctx, f, &o)
	}
	o.Summary = "none"
	if n := len(o.Findings); n > 0 {
		o.Summary = "some files can be removed"
	}
	return o
}

// checkLeft adds to o what killed saves have left of the cache, and what was set aside.
func (x *doctorRun) checkLeft(ctx context.Context, f *files, o *checkResult) {
	var temporary, plainTemporary, aside, readable, plainAside []string
	for _, n := range f.temporary {
		path := filepath.Join(f.dir, n)
		switch {
		case !abandoned(path):
		case layout.Parse(n).OfPlaintext:
			plainTemporary = append(plainTemporary, path)
		default:
			temporary = append(temporary, path)
		}
	}
	for _, n := range f.aside {
		if path := filepath.Join(f.dir, n); layout.Parse(n).OfPlaintext {
			plainAside = append(plainAside, path)
		} else if x.readable(ctx, f, path) {
			readable = append(readable, path)
		} else {
			aside = append(aside, path)
		}
	}
	if temporary != nil {
		o.note(finding{ID: "leftovers.temporary", Cache: f.name,
			What:   fmt.Sprintf("%s: %s of a save that was killed. The next save removes it.", f.name, count(len(temporary), "temporary file")),
			Remedy: "To do that now:", Command: x.removeCommand(temporary)})
	}
	if plainTemporary != nil {
		o.problem(finding{ID: "leftovers.temporary-plaintext", Cache: f.name,
			What:   fmt.Sprintf("%s: %s of a save that was killed, and not encrypted. It may contain tokens.", f.name, count(len(plainTemporary), "temporary file")),
			Remedy: "Remove it:", Command: x.removeCommand(plainTemporary)})
	}
	if readable != nil {
		o.note(finding{ID: "leftovers.readable", Cache: f.name,
			What:   fmt.Sprintf("%s: %s set aside and can be read again, as its key is there: %s. Its sign-ins can be added to what was stored since then.", f.name, was(len(readable), "file"), base(readable)),
			Remedy: "To do that:", Command: x.inFolder("tokenkeep restore " + f.name)})
	}
	if aside != nil {
		o.note(finding{ID: "leftovers.aside", Cache: f.name,
			What:   fmt.Sprintf("%s: %s set aside because it could not be read.", f.name, was(len(aside), "file")),
			Remedy: "If it is not needed for a bug report:", Command: x.removeCommand(aside)})
	}
	if plainAside != nil {
		o.problem(finding{ID: "leftovers.aside-plaintext", Cache: f.name,
			What:   fmt.Sprintf("%s: %s set aside as damaged, and not encrypted. It may contain tokens.", f.name, was(len(plainAside), "file")),
			Remedy: "Remove it:", Command: x.removeCommand(plainAside)})
	}
}

// readable reports whether an encrypted file that was set aside can be read again.
// It asks nobody, and does not ask a keyring that has already failed.
func (x *doctorRun) readable(ctx context.Context, f *files, path string) bool {
	ctx, cancel := context.WithTimeout(ctx, x.timeout)
	defer cancel()
	source, err := encrypted.StoredSource(ctx, path)
	if err != nil || source == storeKeyring && x.keyring(ctx).situation != "" {
		return false
	}
	_, err = x.openAside(ctx, f, path)
	return err == nil
}

func (c *call) removeCommand(paths []string) string {
	if isWindows {
		return c.windowsCommand("del", paths, "")
	}
	return "rm " + c.quoteAll(paths)
}

// storedSource is encrypted.StoredSource with the doctor's timeout.
func (x *doctorRun) storedSource(ctx context.Context, path string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, x.timeout)
	defer cancel()
	return encrypted.StoredSource(ctx, path)
}

func checkUnencrypted(ctx context.Context, x *doctorRun) checkResult {
	all, err := x.caches()
	if err != nil {
		return checkResult{Summary: "cannot be read", Status: statusNote}
	}
	var o checkResult
	for _, f := range all {
		switch {
		case f.plaintext && f.encrypted:
			to := storeKeyring
			if source, err := x.storedSource(ctx, f.encryptedPath()); err == nil && checkStore(source) == nil {
				to = source
			}
			o.problem(finding{ID: "unencrypted.beside", Cache: f.name,
				What:   f.name + ": there are unencrypted tokens beside the encrypted ones, in " + filepath.Base(f.plaintextPath()) + ". Its program moves them at its next start, if it permits plaintext.",
				Remedy: "To do that now:", Command: x.inFolder("tokenkeep move " + f.name + " -to " + to)})
		case f.plaintext && x.keyring(ctx).situation == "":
			o.problem(finding{ID: "unencrypted.needless", Cache: f.name,
				What:   f.name + " keeps its tokens unencrypted, although there is a keyring now. Its program moves them at its next start, if it permits plaintext and was not told to use it.",
				Remedy: "To do that now:", Command: x.inFolder("tokenkeep move " + f.name + " -to keyring")})
		case f.plaintext:
			o.note(finding{ID: "unencrypted.only", Cache: f.name,
				What:   f.name + " keeps its tokens unencrypted: anybody who can read its file can sign in as you.",
				Remedy: "Repair the keyring (see above), or use a passphrase:", Command: x.inFolder("tokenkeep move " + f.name + " -to passphrase")})
		}
	}
	o.Summary = "none"
	if n := len(o.Findings); n > 0 {
		o.Summary = "in " + count(n, "cache")
	}
	return o
}
