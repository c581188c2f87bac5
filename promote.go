package tokenkeep

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/tokenkeep/tokenkeep/encrypted"
	"github.com/tokenkeep/tokenkeep/fallback"
	"github.com/tokenkeep/tokenkeep/internal/layout"
	"github.com/tokenkeep/tokenkeep/internal/ledger"
	"github.com/tokenkeep/tokenkeep/internal/place"
	"github.com/tokenkeep/tokenkeep/internal/shell"
	"github.com/tokenkeep/tokenkeep/internal/tokencache"
	"github.com/tokenkeep/tokenkeep/internal/transfer"
	"github.com/tokenkeep/tokenkeep/internal/within"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// promoter moves plaintext into the encrypted file, and files that cannot be used
// any more out of the way. The store calls it; it does not know the store.
//
// Nothing authenticates a plaintext file: it may come from a restored backup, from
// a folder that is synchronised, or from another program. So it is read and moved
// only if that is permitted. If nothing is stored encrypted, all of it is moved.
// Beside an encrypted file it only adds, by the rules of [transfer.Add]: it
// replaces no entry and brings back no account. What may not be added stays in
// the plaintext file. A warning always says what happened.
//
// A promotion that was interrupted also leaves a plaintext file beside the encrypted
// one. The ledger recognises it: a revision that was copied already is not copied
// again, but removed. It is recorded after the copy and never before: another process
// may be faster with an older copy, and then the difference would be lost.
type promoter struct {
	cache     layout.Cache
	place     place.Place
	lock      *persistence.FileLock
	ledger    ledger.Ledger
	permitted bool
	toKernel  bool // plaintext may be moved to the kernel's keyring, because the user asks for it
	warn      func(fallback.Warning)
	ended     func(message string) // told of a sign-in that was kept for a time, and has ended
	// notMoved is told of what stays in plaintext. What it returns is the error
	// of promote.
	notMoved func(fallback.Warning) error
}

// found reports whether there is a plaintext file that may be moved.
func (p *promoter) found() bool { return p.permitted && place.Exists(p.place.Plaintext) }

// file returns the plaintext file, whether it is permitted or not.
func (p *promoter) file() (*fallback.InsecurePlaintextFile, error) {
	if p.place.Apart {
		return nil, &persistence.Error{Op: "open", Backend: "plaintext", Location: p.place.Plaintext,
			Err:    fmt.Errorf("it is a link out of the folder of %s, whose lock it has to share", p.place.Encrypted),
			Remedy: "Remove the link, or link the encrypted file to the same folder as well."}
	}
	return fallback.NewInsecurePlaintextFile(p.place.Plaintext, func(fallback.Warning) {}, &fallback.Options{Lock: p.lock})
}

// errMalformed says that the plaintext file is no token cache any more.
var errMalformed = errors.New("the file is damaged")

// promote moves the plaintext file into to, if there is one: copied or merged,
// read back, compared, and only then removed. A plaintext file that cannot be
// moved is no reason not to use the encrypted one: that is left to notMoved.
func (p *promoter) promote(ctx context.Context, to *encrypted.File) error {
	if !place.Exists(p.place.Plaintext) {
		return nil
	}
	if !p.permitted {
		return p.notMoved(p.warning(fmt.Sprintf("Unencrypted tokens stay in %s. They were neither used nor moved.", p.place.Plaintext),
			"This program does not permit plaintext.",
			fmt.Sprintf("Remove the file or, if the tokens are yours, move them with: tokenkeep move %s -to %s", p.arguments(), to.Describe().KeySource)))
	}
	if to.Describe().KeySource == layout.Kernel && !p.toKernel {
		return p.notMoved(p.warning(fmt.Sprintf("Unencrypted tokens stay in %s. They were neither used nor moved.", p.place.Plaintext),
			"What is stored encrypted here lasts until this machine is restarted, and they may last longer.",
			fmt.Sprintf("Remove the file or, if the tokens are yours, move them with: tokenkeep move %s -to %s", p.arguments(), layout.Kernel)))
	}
	ctx, cancel := boundedWait(ctx)
	defer cancel()
	from, err := p.file()
	if err != nil {
		return p.failed(err)
	}
	m := promotion{promoter: p, from: from, to: to}
	t := &transfer.Transfer{From: from, To: to, NotFound: persistence.ErrNotFound, Conflict: persistence.ErrConflict,
		Combine: m.combine, BeforeDelete: m.record}
	err, ended := within.Retry(ctx, func(err error) bool { return errors.Is(err, persistence.ErrConflict) }, func() error { return m.try(ctx, t) })
	if ended {
		return openError(p.place.Plaintext, fmt.Errorf("%w: %w", persistence.ErrConflict, ctx.Err()), "Other programs keep changing the file. Try again.")
	}
	return err
}

// promotion is one call of promote.
type promotion struct {
	*promoter
	from *fallback.InsecurePlaintextFile
	to   *encrypted.File

	alone bool // nothing was stored encrypted when the copy was made
	rev   string
	all   int // accounts in the plaintext file
	added transfer.Added
	known bool // it was moved before
	empty bool // it holds nothing
}

// try moves once. It fails with ErrConflict if it is to be done again.
func (m *promotion) try(ctx context.Context, t *transfer.Transfer) error {
	done, err := t.Try(ctx)
	var source *transfer.SourceError
	var readBack *transfer.ReadBackError
	switch {
	case errors.As(err, &source):
		return m.failed(source.Err)
	case errors.As(err, &readBack):
		readBack.Err = persistence.Cause(readBack.Err)
		return openError(m.to.Describe().Location, err, "Check the disk, then start the program again.")
	case errors.Is(err, errMalformed):
		return m.quarantinePlaintext(ctx, m.from, m.rev)
	case errors.Is(err, errNotMergeable):
		return m.failed(err)
	case unrecoverable(err):
		if err := m.quarantine(ctx, m.to); err != nil {
			return err
		}
		return persistence.ErrConflict
	case err != nil, done.FromRev == "":
		return err
	}
	return m.report()
}

var errNotMergeable = errors.New("it cannot be merged with what is stored encrypted")

func (m *promotion) combine(h transfer.Held) (transfer.Next, error) {
	m.rev, m.all, m.added, m.known = h.Rev, transfer.Accounts(h.From), transfer.Added{}, false
	h.From = transfer.Usable(h.From)
	m.empty = len(h.From) == 0
	switch {
	case m.empty:
		return transfer.Next{Data: h.To}, nil
	case transfer.Malformed(h.From):
		return transfer.Next{}, errMalformed
	case h.To == nil:
		m.alone = true
		var data []byte
		data, m.added.Refused = tokencache.Sound(h.From)
		return transfer.Next{Data: data, Changed: true}, nil
	case m.ledger.Promoted() == h.Rev:
		m.known = true
		return transfer.Next{Data: h.To}, nil
	case bytes.Equal(h.From, h.To): // of whatever format
		return transfer.Next{Data: h.To}, nil
	case m.alone && h.Copied != nil:
		// A program that keeps plaintext saved once more after the copy, which was
		// all that was stored. What it changed is known.
		merged, changed, refused, err := transfer.Merge(h.Copied, h.From, h.To)
		if err != nil {
			return transfer.Next{}, errNotMergeable
		}
		m.added.Refused = refused
		return transfer.Next{Data: merged, Changed: changed}, nil
	}
	sum, changed, added, err := transfer.Add(h.From, h.To)
	if err != nil {
		return transfer.Next{}, errNotMergeable
	}
	m.alone, m.added = false, added
	return transfer.Next{Data: sum, Changed: changed, Keep: added.Left > 0}, nil
}

// record is needed only if the process is killed before the file is removed.
func (m *promotion) record(ctx context.Context, rev string) error {
	_ = m.lock.Hold(ctx, func() error { return m.ledger.SetPromoted(rev) })
	return nil
}

// report says what was moved, and what was not.
func (m *promotion) report() error {
	from, into := m.place.Plaintext, m.to.Describe().Location
	why := "They can be stored encrypted here."
	if m.to.Describe().KeySource == layout.Keyring {
		why += " A session in which the keyring is locked, as over SSH, cannot use them any more."
	}
	if len(m.added.Refused) > 0 {
		m.warn(m.warning(fmt.Sprintf("Some of the unencrypted entries in %s were left out: %s.", from, tokencache.Names(m.added.Refused)),
			"MSAL cannot read them, and would refuse all others with them.", "If a sign-in is missing, sign in again."))
	}
	switch {
	case m.empty: // nobody misses it
	case m.known:
		m.warn(m.warning(fmt.Sprintf("%s was removed. Its unencrypted tokens had been moved into the encrypted file %s before.", from, into),
			"The program that moved them ended before it could remove the file, or an old copy was put back.", ""))
	case m.alone:
		m.warn(m.warning(fmt.Sprintf("The unencrypted tokens in %s were moved into the encrypted file %s (accounts: %d).", from, into, m.all),
			why, "If you expected no unencrypted tokens there, sign out and sign in again."))
	case m.added.Left > 0:
		return m.notMoved(m.warning(
			fmt.Sprintf("Unencrypted tokens stay in %s (entries added to the encrypted file: %d, not added: %d).", from, m.added.Entries, m.added.Left),
			"The others belong to accounts that are not signed in here, and an old copy or another program may have put them there.",
			fmt.Sprintf("Remove the file or, to use its tokens nevertheless, add them with: tokenkeep import %s %s", m.arguments(), shell.Quote(from))))
	default:
		m.warn(m.warning(fmt.Sprintf("The unencrypted tokens in %s were merged into the encrypted file %s (entries added: %d, replaced: none).", from, into, m.added.Entries),
			why, ""))
	}
	return nil
}

// arguments are the command line's for this cache.
func (p *promoter) arguments() string {
	if dir, err := DefaultDir(); err == nil && dir == p.cache.Dir {
		return p.cache.Name
	}
	return p.cache.Name + " -dir " + shell.Quote(p.cache.Dir)
}

func (p *promoter) warning(message, reason, remedy string) fallback.Warning {
	return fallback.Warning{Location: p.place.Plaintext, Message: message, Reason: reason, Remedy: remedy}
}

// failed is for a plaintext file that cannot be read or moved.
func (p *promoter) failed(err error) error {
	remedy := persistence.Remedy(err)
	if remedy == "" {
		remedy = "Remove the file if it is not needed."
	}
	return p.notMoved(p.warning(fmt.Sprintf("Unencrypted tokens stay in %s. They could not be moved into the encrypted file.", p.place.Plaintext),
		sentence(persistence.Cause(err).Error()), remedy))
}

// quarantine renames the encrypted file away, if it fails again in the same way
// and is still the same.
func (p *promoter) quarantine(ctx context.Context, file *encrypted.File) error {
	ctx, cancel := boundedWait(ctx)
	defer cancel()
	_, rev, err := file.LoadRevision(ctx)
	if !unrecoverable(err) {
		return nil // another process was faster, or it was not so bad: look again
	}
	to, asideErr := file.SetAside(ctx, rev)
	return p.quarantined(file.Describe(), to, asideErr, persistence.Cause(err))
}

// quarantinePlaintext renames the plaintext file away, if it still has the
// revision.
func (p *promoter) quarantinePlaintext(ctx context.Context, file *fallback.InsecurePlaintextFile, rev string) error {
	to, err := file.SetAside(ctx, rev)
	return p.quarantined(file.Describe(), to, err, errMalformed)
}

// quarantined warns that the file was renamed to the name to, unless err says
// that it was not.
func (p *promoter) quarantined(file persistence.Description, to string, err, reason error) error {
	if errors.Is(err, persistence.ErrConflict) || errors.Is(err, persistence.ErrNotFound) {
		return nil // another process was faster
	}
	if err == nil && file.KeySource == layout.Kernel && errors.Is(reason, persistence.ErrKeyMissing) {
		p.ended("The sign-in was kept until a restart, or three days without use, and has ended. Sign in again.")
		return nil
	}
	if err == nil {
		p.warn(fallback.Warning{Location: file.Location,
			Message: "The stored tokens can no longer be read, so you will have to sign in again.",
			Reason:  sentence(reason.Error()),
			Remedy:  "The file was kept as " + to + ". It can be removed; the newest five such files are kept."})
	}
	return err
}

// unrecoverable reports whether what is stored can certainly not be read any
// more. A locked keyring, a mistyped passphrase or a newer version is not that.
func unrecoverable(err error) bool {
	return errors.Is(err, persistence.ErrCorrupt) || errors.Is(err, persistence.ErrKeyMissing)
}

// sentence makes a sentence of an error's text.
func sentence(text string) string {
	first, size := utf8.DecodeRuneInString(text)
	text = string(unicode.ToUpper(first)) + text[size:]
	if strings.HasSuffix(text, ".") {
		return text
	}
	return text + "."
}

// clause makes the text of an error of sentences.
func clause(sentences string) string {
	return strings.TrimSuffix(sentences, ".")
}
