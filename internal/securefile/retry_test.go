package securefile

import (
	"context"
	"errors"
	"io/fs"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// The answers of Windows, played back in the time of the test.
var (
	errSharing = errors.New("sharing violation")
	errDenied  = &fs.PathError{Op: "open", Path: "cache", Err: fs.ErrPermission}
	errOther   = errors.New("another error")
	errUnknown = errors.New("unknown information class")
)

func judge(err error) refusal {
	switch {
	case errors.Is(err, errSharing):
		return shared
	case errors.Is(err, fs.ErrPermission):
		return denied
	}
	return final
}

// after fails with err until d has gone by.
func after(d time.Duration, err error) (do func() error, tries *int) {
	start := time.Now()
	tries = new(int)
	return func() error {
		*tries++
		if time.Since(start) < d {
			return err
		}
		return nil
	}, tries
}

func TestFilesThatOthersKeepOpen(t *testing.T) {
	for name, c := range map[string]struct {
		open, deadline time.Duration // how long the file is open; of the context, 0 for none
		err            error
		ok             bool
		most           time.Duration // that it may take: a pause is random, up to half as long again
	}{
		"a scanner":                           {300 * time.Millisecond, 0, errSharing, true, 400 * time.Millisecond},
		"a backup, of 3 s":                    {3 * time.Second, 10 * time.Second, errSharing, true, 3200 * time.Millisecond},
		"longer than the context":             {3 * time.Second, time.Second, errSharing, false, time.Second},
		"for ever":                            {time.Hour, 0, errSharing, false, sharedWait + maxPause*2},
		"a deletion that is under way":        {20 * time.Millisecond, 0, errDenied, true, 20*time.Millisecond + 2*maxPause},
		"an access list: not a second a call": {time.Hour, 0, errDenied, false, 200 * time.Millisecond},
		"something else":                      {time.Hour, 0, errOther, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				if c.deadline > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, c.deadline)
					defer cancel()
				}
				do, tries := after(c.open, c.err)
				start := time.Now()
				err := retryBusy(ctx, "cache", judge, do)
				require.LessOrEqual(t, time.Since(start), c.most)
				require.Less(t, *tries, 1000, "it waits longer each time")
				if c.ok {
					require.NoError(t, err)
					return
				}
				require.ErrorIs(t, err, c.err)
				var insecure *Error
				require.Equal(t, c.err == errSharing, errors.As(err, &insecure), "%v", err)
				require.Equal(t, c.err == errSharing, errors.Is(err, ErrKeptOpen))
				if insecure != nil {
					require.Contains(t, err.Error(), "cache: is kept open by another program")
					require.NotEmpty(t, insecure.Remedy())
					require.Equal(t, c.deadline > 0, errors.Is(err, context.DeadlineExceeded))
				}
			})
		})
	}
	do, tries := after(time.Hour, errSharing)
	require.Equal(t, errSharing, retryBusy(once, "cache", judge, do))
	require.Equal(t, 1, *tries)
}

// Another program's file that is being deleted is waited for like one that is kept open.
// One that an access list denies shows its attributes, and is not.
func TestFilesThatAreBeingDeleted(t *testing.T) {
	for _, c := range []struct {
		why, attributes, want refusal
	}{
		{denied, denied, shared},
		{denied, final, denied},
		{denied, shared, denied},
		{shared, denied, shared},
		{final, denied, final},
	} {
		require.Equal(t, c.want, whileDeleted(c.why, func() refusal { return c.attributes }))
	}
	for _, pending := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			attributes := map[bool]refusal{true: denied, false: final}[pending]
			do, _ := after(time.Second, errDenied)
			start := time.Now()
			err := retryBusy(t.Context(), "cache", func(err error) refusal {
				return whileDeleted(judge(err), func() refusal { return attributes })
			}, do)
			if pending {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, fs.ErrPermission, "control")
			require.NotErrorIs(t, err, ErrKeptOpen)
			require.Less(t, time.Since(start), 200*time.Millisecond)
		})
	}
}

// An older system and another file system do it in another way; a failure of a way
// that is known counts.
func TestFirstKnown(t *testing.T) {
	unknown := func(err error) bool { return err == errUnknown }
	var tried []int
	way := func(n int, err error) func() error {
		return func() error { tried = append(tried, n); return err }
	}
	for _, c := range []struct {
		ways []error
		want error
		last int
	}{
		{[]error{nil, errOther}, nil, 0},
		{[]error{errUnknown, nil, errOther}, nil, 1},
		{[]error{errUnknown, errSharing, nil}, errSharing, 1},
		{[]error{errUnknown, errUnknown}, errUnknown, 1},
	} {
		tried = nil
		var ways []func() error
		for n, err := range c.ways {
			ways = append(ways, way(n, err))
		}
		require.Equal(t, c.want, firstKnown(unknown, ways...))
		require.Len(t, tried, c.last+1)
	}
}

// The tags are Microsoft's.
func TestReparsePoints(t *testing.T) {
	for tag, link := range map[uint32]bool{
		0xA000000C: true,  // a symbolic link
		0xA0000003: true,  // a mount point, or a junction
		0xA000001D: true,  // a symbolic link of WSL
		0x80000013: false, // Windows Server has deduplicated the file
		0x80000007: false, // the same, on older ones
		0x9000001A: false, // a file of OneDrive
		0x80000017: false, // compressed by the system
	} {
		require.Equal(t, link, isLinkTag(tag), "%X", tag)
	}
}
