package signout

import (
	"slices"
	"testing"
	"testing/synctest"
)

// Each of these lost to rules that were simpler than those of package replica. A
// schedule says which actor does its next step, by its number.
func TestSignOutsStickWhereSimplerRulesFail(t *testing.T) {
	one := map[string][]string{alice: {online}}
	two := map[string][]string{alice: {online}, bob: {online}}
	in := func(process int, ops ...op) actor { return actor{process, ops} }
	look := func(user string) op { return op{do: "hit", user: user} }
	out := func(k kind) op {
		if k.partitioned {
			return op{do: "sign out here", user: alice}
		}
		return signOutOf(alice)
	}
	cached := slices.DeleteFunc(slices.Clone(kinds), func(k kind) bool { return k.partitioned })
	partitioned := slices.DeleteFunc(slices.Clone(kinds), func(k kind) bool { return !k.partitioned })
	silentSharing := slices.DeleteFunc(slices.Clone(kinds), func(k kind) bool { return k.clients == perRequest })
	perRequestPartitioned := []kind{kindNamed("partitioned, client per request")}
	sharingPartitioned := slices.DeleteFunc(slices.Clone(partitioned), func(k kind) bool { return k.clients == perRequest })
	sharing := slices.DeleteFunc(slices.Clone(kinds), func(k kind) bool { return k.clients != shared })
	for _, c := range []struct {
		name     string
		kinds    []kind
		stored   map[string][]string
		actors   func(k kind) []actor
		unsaved  int // as in scenario
		schedule string
		answers  int // how many the authority has given, at the end
	}{
		{"C1, two refreshes under way", kinds, one, func(k kind) []actor {
			return []actor{in(0, during(1, silent(alice))), in(0, during(1, silent(alice))), in(1, out(k))}
		}, 0, "0011 22 0011", 2},
		{"C1, of two requests", kinds, one, func(k kind) []actor {
			return []actor{in(0, silent(alice)), in(0, silent(alice)), in(1, out(k))}
		}, 0, "0011 22 0011", 2},
		{"C2, a look at the account meanwhile", kinds, one, func(k kind) []actor {
			return []actor{in(0, during(1, silent(alice))), in(0, during(1, look(alice))), in(1, out(k))}
		}, 0, "00 22 1 00", 1},
		{"C2, a look at another account meanwhile", kinds, two, func(k kind) []actor {
			return []actor{in(0, during(1, silent(alice))), in(0, during(1, look(bob))), in(1, out(k))}
		}, 0, "00 22 1 00", 1},
		{"C3, another name of the cloud", kinds, map[string][]string{alice: {windows}}, func(k kind) []actor {
			return []actor{in(0, silent(alice)), in(1, out(k))}
		}, 0, "00 1111 00", 1},
		{"C3, another name of the cloud, signed out before the save", kinds, map[string][]string{alice: {windows}}, func(k kind) []actor {
			return []actor{in(0, silent(alice)), in(1, out(k))}
		}, 0, "000 1111 0", 1},
		{"C3, both names of the cloud", cached, map[string][]string{alice: {online, windows}}, func(k kind) []actor {
			return []actor{in(0, silent(alice)), in(1, out(k))}
		}, 0, "00 0 1 0 111", 1},
		{"C3, both names of the cloud, asked for between them", cached, map[string][]string{alice: {online, windows}}, func(k kind) []actor {
			return []actor{in(0, silent(alice)), in(1, out(k))}
		}, 0, "11 1 0000 1", 1},
		{"C4, a refresh with what was not stored", silentSharing, one, func(k kind) []actor {
			return []actor{in(0, silent(alice)), in(0, silent(alice)), in(1, out(k))}
		}, 0, "00 22 1 00 1 11", 2},
		{"C5, a sign-in that could not read", sharing, one, func(k kind) []actor {
			return []actor{in(0, look(alice), signIn(alice)), in(1, out(k)), events("reads fail", "all works")}
		}, 0, "0 11 2 00 2 0", 1},
		{"C5, a sign-in that could neither read nor save", sharing, one, func(k kind) []actor {
			return []actor{in(0, look(alice), signIn(alice)), in(1, out(k)), events("all fails", "all works")}
		}, 0, "0 11 2 000 2", 1},
		{"C6, a sign-in that could not be stored, signed out", partitioned, one, func(k kind) []actor {
			return []actor{in(0, out(k), during(1, signIn(alice))), events("saves fail", "all works"), in(0, during(2, silent(alice))), in(0, out(k))}
		}, 0, "0 1 000 22 1 3 22", 2},
		{"C7, signed out after a sign-in that could not read", sharing, one, func(k kind) []actor {
			return []actor{in(0, look(alice), signIn(alice), silent(alice)), events("all fails", "all works"), in(1, out(k))}
		}, 0, "0 1 000 1 000 22 0", 2},
		{"C8, another client's save failed, and had nothing of the user's", partitioned, one, func(k kind) []actor {
			return []actor{in(0, silent(alice)), in(0, silent(alice)), in(0, out(k)), events("reads fail", "all works")}
		}, 0, "0 11 2 1 3 1 000", 2},
		{"C9, another client's sign-in that could not be stored came after the sign-out", perRequestPartitioned, map[string][]string{alice: {windows}}, func(k kind) []actor {
			return []actor{in(0, silent(alice)), in(0, signIn(alice)), in(1, out(k), out(k)), events("all fails", "all works")}
		}, 0, "0 1 2 1 3 1 000 3 2", 2},
		{"C10, a sign-in while what another one could not store is found signed out", partitioned, one, func(k kind) []actor {
			return []actor{in(0, silent(alice)), in(0, markedSignIn(alice)), in(1, out(k)), in(0, op{do: "flush"}), events("saves fail", "all fails", "all works")}
		}, 0, "000 2 1 4 0 4 1 4 3 1", 2},
		{"C11, signed out after a first sign-in that could not read", sharingPartitioned, one, func(k kind) []actor {
			return []actor{in(0, during(1, markedSignIn(alice))), in(0, out(k)), in(0, during(2, silent(alice))), events("reads fail", "all works")}
		}, 0, "3 000 1 2 3 222", 1},
		{"C12, another request could not store what this one did", perRequestPartitioned, nil, func(k kind) []actor {
			return []actor{in(0, markedSignIn(alice)), in(0, silent(alice)), in(0, silent(alice)), in(1, out(k)), in(0, op{do: "flush"}), events("saves fail", "all works")}
		}, 0, "5 000 111 222 1 5 2 3 4", 3},
		{"C13, a refresh after a sign-in that could not read, signed out", sharingPartitioned, nil, func(k kind) []actor {
			return []actor{in(0, look(alice)), in(0, silent(bob)), in(0, markedSignIn(alice)), in(0, silent(alice)), in(0, silent(alice)), in(0, out(k)), events("all fails", "all works")}
		}, 0, "0 1 2 6 22 3 4444 33 6 5 3", 3},
		{"C14, a refresh that asks for a lease when its answer has come", sharingPartitioned, one, func(k kind) []actor {
			return []actor{in(0, silent(alice)), in(1, out(k), signIn(alice)), in(0, inTurn(alice))}
		}, 0, "0 1 0 2 0 111 0 222", 3},
		{"C15, signed out again long after an answer was left out", []kind{kindNamed("partitioned, shared client")}, one, func(k kind) []actor {
			return []actor{in(0, silent(alice)), in(1, out(k)), in(0, look(alice)), in(0, signIn(alice)), in(0, silent(alice)), events("time goes by"), in(0, out(k))}
		}, 0, "00 1 2 333 44 00 5 6 44", 3},
		{"C16, signed out while nothing of the user is stored", sharingPartitioned, nil, func(k kind) []actor {
			return []actor{in(0, during(1, silent(alice))), in(0, during(1, silent(alice))), in(0, during(1, signIn(alice))), events("saves fail", "all works"), events("time goes by"), in(0, out(k))}
		}, 1, "0 2 3 22 3 0 1 00 1 4 5 11", 3},
		{"C17, a refresh with what could neither be stored nor kept", sharingPartitioned, nil, func(k kind) []actor {
			return []actor{in(0, markedSignIn(alice)), in(0, silent(alice)), in(0, look(alice)), events("all fails", "all works", "all fails", "all works"), in(0, out(k))}
		}, 1, "0 3 00 1 2 33 11 3 4 1", 1},
		{"C18, a sign-in that could not read, and what another one could not store", perRequestPartitioned, map[string][]string{alice: {windows}}, func(k kind) []actor {
			return []actor{in(0, silent(alice)), in(0, markedSignIn(alice)), in(0, signIn(alice)), events("all fails", "all works")}
		}, 0, "0 1 0 22 3 1 2 0 1 3 0", 3},
		{"C19, signed out here while nothing can be read, and signed in elsewhere", sharingPartitioned, one, func(k kind) []actor {
			return []actor{in(0, silent(alice), silent(alice)), in(0, out(k)), in(1, signIn(alice)), events("reads fail", "all works")}
		}, 0, "0000 3 1 0 3 222 000", 2},
		{"C20, signed out and in again here", partitioned, one, func(k kind) []actor {
			return []actor{in(0, silent(alice)), in(0, out(k), signIn(alice))}
		}, 0, "00 1 111 00", 2},
		{"C21, an answer is left out while a sign-in could not be stored", []kind{kindNamed("partitioned, shared client")}, one, func(k kind) []actor {
			return []actor{in(0, silent(alice)), in(1, out(k)), in(0, signIn(alice)), events("saves fail", "all works")}
		}, 0, "00 1 3 222 0 3 0", 2},
		{"a sign-out that failed, and a sign-in elsewhere", cached, one, func(k kind) []actor {
			return []actor{in(0, out(k), look(bob)), events("saves fail", "all works"), in(1, signIn(alice))}
		}, 0, "1 00 1 222 0", 1},
		{"deleted while a sign-in could not be stored", cached, nil, func(k kind) []actor {
			return []actor{in(0, signIn(alice)), events("saves fail", "all works"), in(0, op{do: "delete"})}
		}, 0, "0 1 00 1 2", 1},
	} {
		for _, k := range c.kinds {
			t.Run(c.name+"/"+k.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					q := kindNamed("public")
					if k.partitioned {
						q = kindNamed("partitioned, client per request")
					}
					s := &scenario{name: c.name, processes: []kind{k, q}, stored: c.stored, by: -1, actors: c.actors(k), unsaved: c.unsaved}
					var schedule []turn
					for _, r := range c.schedule {
						if r != ' ' {
							schedule = append(schedule, turn{int(r - '0'), -1})
						}
					}
					w := run(s, schedule)
					if w.bad != "" {
						t.Fatal(w)
					}
					answers := 0
					for _, s := range w.secrets {
						if s.answered != 0 && s.c != nil && s.user != "zoe" {
							answers++
						}
					}
					if answers != c.answers {
						t.Errorf("the authority has answered %d requests, not %d:\n%s", answers, c.answers, w)
					}
				})
			})
		}
	}
}
