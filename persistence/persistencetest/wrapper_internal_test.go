package persistencetest

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// A wrapper that hides an ability, has one that is not there, or keeps a call to
// itself is caught.
func TestRunWrapperCatches(t *testing.T) {
	pass := func(_ context.Context, _ string, call func() error) error { return call() }
	hides := func(hidden ability) func(persistence.Persistence) persistence.Persistence {
		return func(p persistence.Persistence) persistence.Persistence {
			return intercepted{p, pass}.with(abilitiesOf(p) &^ hidden)
		}
	}
	keeps := func(kept string) func(persistence.Persistence) persistence.Persistence {
		m := complete{persistence.NewMemory()}
		return func(p persistence.Persistence) persistence.Persistence {
			return Intercept(p, func(ctx context.Context, op string, call func() error) error {
				switch {
				case op == kept && op == "Save":
					return m.Save(ctx, nil)
				case op == kept && op == "Lease":
					_, err := m.Lease(ctx, "owner", time.Minute)
					return err
				case op == kept:
					return nil
				}
				return call()
			})
		}
	}
	for name, wrong := range map[string]struct {
		wrap func(persistence.Persistence) persistence.Persistence
		says string
	}{
		"hides Versioned":   {hides(versioned | setAsider), "Describer is a Persistence, Describer"},
		"hides Locker":      {hides(locker | namedLocker), "is a Persistence"},
		"hides NamedLocker": {hides(namedLocker), "is a Persistence, Locker"},
		"hides Leaser":      {hides(leaser), "is a Persistence"},
		"hides SetAsider":   {hides(setAsider), "is a Persistence, Versioned"},
		"has a lock of its own": {func(p persistence.Persistence) persistence.Persistence {
			m := persistence.NewMemory()
			if _, ok := p.(persistence.Locker); ok {
				return p
			}
			return struct {
				persistence.Persistence
				persistence.Describer
				persistence.Locker
			}{p, p.(persistence.Describer), m}
		}, "is a Persistence, Locker"},
		"does not describe itself": {func(p persistence.Persistence) persistence.Persistence { return struct{ persistence.Persistence }{p} }, "is a Persistence"},
		"saves nothing":            {keeps("Save"), "does not pass on Save"},
		"asks for no revision":     {keeps("Revision"), "does not pass on Revision"},
		"locks nothing":            {keeps("Lock"), "a lock without an unlock"},
		"sets nothing aside":       {keeps("SetAside"), "SetAside"},
		"takes no lease":           {keeps("Lease"), "Lease"},
		"deletes nothing":          {keeps("Delete"), "does not pass on Delete"},
	} {
		t.Run(name, func(t *testing.T) {
			rec := &recorder{TB: t}
			done := make(chan struct{})
			go func() {
				defer close(done)
				checkWrapper(rec, wrong.wrap)
			}()
			<-done
			if text := strings.Join(rec.lines, "\n"); !rec.failed || !strings.Contains(text, wrong.says) {
				t.Errorf("it is not caught, or for another reason than %q:\n%s", wrong.says, text)
			}
		})
	}
	t.Run("control", func(t *testing.T) {
		checkWrapper(t, func(p persistence.Persistence) persistence.Persistence { return p })
		checkWrapper(t, func(p persistence.Versioned) persistence.Persistence { return p })
	})
	t.Run("takes nothing", func(t *testing.T) {
		rec := &recorder{TB: t}
		done := make(chan struct{})
		go func() {
			defer close(done)
			checkWrapper(rec, func(p *stranger) persistence.Persistence { return p })
		}()
		<-done
		if !rec.failed {
			t.Error("a wrapper that was never called passes")
		}
	})
}

// stranger is what no backend in memory is.
type stranger struct{ persistence.Persistence }
