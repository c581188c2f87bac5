package persistence

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
)

// digestVersioned adapts a plain Persistence to [Versioned]. The revision is a
// digest of the data, so asking for it costs a Load. SaveIf compares and saves in
// two steps: callers hold the lock.
type digestVersioned struct{ Persistence }

func (h digestVersioned) Revision(ctx context.Context) (string, error) {
	_, rev, err := h.LoadRevision(ctx)
	if errors.Is(err, ErrNotFound) {
		return "", nil
	}
	return rev, err
}

func (h digestVersioned) LoadRevision(ctx context.Context) ([]byte, string, error) {
	data, err := h.Load(ctx)
	if err != nil {
		return nil, "", err
	}
	return data, digest(data), nil
}

func (h digestVersioned) SaveIf(ctx context.Context, data []byte, rev string) (string, error) {
	if err := h.expect(ctx, "save", rev); err != nil {
		return "", err
	}
	if err := h.Save(ctx, data); err != nil {
		return "", err
	}
	return digest(data), nil
}

func (h digestVersioned) DeleteIf(ctx context.Context, rev string) error {
	if err := h.expect(ctx, "delete", rev); err != nil {
		return err
	}
	return h.Delete(ctx)
}

func (h digestVersioned) expect(ctx context.Context, op, rev string) error {
	now, err := h.Revision(ctx)
	if err == nil && now != rev {
		d := h.Describe()
		err = &Error{Op: op, Backend: d.Backend, Location: d.Location, Err: ErrConflict}
	}
	return err
}

func (h digestVersioned) Describe() Description { return Describe(h.Persistence) }

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
