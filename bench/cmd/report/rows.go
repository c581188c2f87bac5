//go:build linux

package main

// row is a line of a table: our figure and, where there is one, the limit's.
type row struct {
	what  string
	ours  figure
	limit figure
	// One of the three at most: how many times the limit it may be, how many
	// times the limit it has to be, what it may be itself (in the figure's unit).
	atMost, atLeast, value float64
	peers                  []figure // in the order of the table's peers
}

// table is a topic.
type table struct {
	title string
	text  string
	limit string // what the limit is
	cpu   bool   // no disk has a part in it, so the ratio of the processor's time tells something too
	peers []string
	rows  []row
}

var peers = []string{"msext", "99designs"}

// compared is a row of a topic that has a limit and peers.
func compared(topic, param, what string, atMost float64) row {
	of := func(subject string) figure { return figure{bench: topic + "/subject=" + subject + "/" + param} }
	r := row{what: what, ours: of("tokenkeep"), limit: of("limit"), atMost: atMost}
	for _, p := range peers {
		r.peers = append(r.peers, of(p))
	}
	return r
}

var tables = []table{
	{
		title: "A warm Replace",
		text:  "What every silent token costs when nothing has changed. The serializer does no work, so msext's Unmarshal of all of it in every Replace is not in its figure; it is in that of AcquireTokenSilent.",
		limit: "a stat", peers: peers, cpu: true,
		rows: []row{
			compared("Replace", "size=10KB", "10 KB", 1.5),
			compared("Replace", "size=1MB", "1 MB", 1.5),
			compared("Replace", "size=10MB", "10 MB", 1.5),
			{what: "10 MB as against 10 KB", ours: figure{bench: "Replace/subject=tokenkeep/size=10MB"}, limit: figure{bench: "Replace/subject=tokenkeep/size=10KB"}, atMost: 1.1},
			{what: "allocated, 10 MB as against 10 KB", ours: figure{"Replace/subject=tokenkeep/size=10MB", "B/op"}, limit: figure{"Replace/subject=tokenkeep/size=10KB", "B/op"}, atMost: 1},
		},
	}, {
		title: "AcquireTokenSilent, answered from the cache",
		text:  "A real MSAL Go public client; each account has three tokens of 2 KB.",
		limit: "a memory that was filled once", peers: peers, cpu: true,
		rows: []row{
			compared("Silent", "accounts=1", "1 account", 1.3),
			compared("Silent", "accounts=1000", "1,000 accounts", 1.1),
		},
	}, {
		title: "A cold Load, the key in memory",
		text:  "msext's file is not encrypted. 99designs asks its key derivation anew each time.",
		limit: "read, AES-GCM", peers: peers, cpu: true,
		rows: []row{
			compared("Load", "size=10KB", "10 KB", 1.3),
			compared("Load", "size=100KB", "100 KB", 1.3),
			compared("Load", "size=1MB", "1 MB", 1.3),
			compared("Load", "size=10MB", "10 MB", 1.3),
		},
	}, {
		title: "A Save, encrypted and durable",
		text:  "msext and 99designs write in place and flush nothing: after a crash the file may be empty. msext's is not encrypted.",
		limit: "AES-GCM, write, fsync, rename, fsync of the folder", peers: peers,
		rows: []row{
			compared("Save", "size=10KB", "10 KB", 1.15),
			compared("Save", "size=100KB", "100 KB", 1.15),
			compared("Save", "size=1MB", "1 MB", 1.5),
			compared("Save", "size=10MB", "10 MB", 1.5),
		},
	}, {
		title: "Peak memory",
		text:  "Of a process of its own, on 32 MB: VmHWM less what was resident before, in units of the data's size. What the caller holds already is not counted. The floor of an Export that merges is 3: what is stored, the merged cache and the encrypted file are each there at once, whole. The rest is the index of the three documents, 72 bytes for each entry of each. Below 3, the merge would have to be built where it is encrypted.",
		rows: []row{
			{what: "Load", ours: figure{"Memory/subject=tokenkeep/size=32MB/what=load", "extra/data"}, value: 1.5},
			{what: "Save", ours: figure{"Memory/subject=tokenkeep/size=32MB/what=save", "extra/data"}, value: 1.5},
			{what: "Export that merges", ours: figure{"Memory/subject=tokenkeep/size=32MB/what=merge", "extra/data"}, value: 3},
		},
	}, {
		title: "An Export of 1 MB",
		text:  "All of it: load, merge, encrypt, write, flush. An Export merges only where the stored revision has moved since the Replace. The targets are absolute, so the disk decides them too: the limit is what it takes for its part.",
		limit: "a Save's limit",
		rows: []row{
			{what: "nothing to save, keys reordered", ours: figure{bench: "Export/subject=tokenkeep/size=1MB/what=unchanged"}},
			{what: "nobody else has saved", ours: figure{bench: "Export/subject=tokenkeep/size=1MB/what=changed"}, limit: figure{bench: "Export/subject=limit/size=1MB/what=save"}},
			{what: "merged, few entries changed", ours: figure{"Export/subject=tokenkeep-merge/size=1MB/order=kept", "export-ns"}, limit: figure{bench: "Export/subject=limit/size=1MB/what=save"}, value: 3e6},
			{what: "merged, ours reordered by MSAL", ours: figure{"Export/subject=tokenkeep-merge/size=1MB/order=random", "export-ns"}, limit: figure{bench: "Export/subject=limit/size=1MB/what=save"}, value: 10e6},
			{what: "merged, base and ours reordered", ours: figure{"Export/subject=tokenkeep-merge/size=1MB/order=random-both", "export-ns"}, limit: figure{bench: "Export/subject=limit/size=1MB/what=save"}, value: 10e6},
		},
	}, {
		title: "The merge alone, 1 MB",
		text:  "The part of such an Export that is no disk's, under the same targets.",
		limit: "encoding/json, decoding the three and encoding one", cpu: true,
		rows: []row{
			{what: "few entries changed", ours: figure{bench: "Merge/subject=tokenkeep/size=1MB/order=kept"}, limit: figure{bench: "Merge/subject=json/size=1MB/order=kept"}, value: 3e6},
			{what: "ours reordered by MSAL", ours: figure{bench: "Merge/subject=tokenkeep/size=1MB/order=random"}, limit: figure{bench: "Merge/subject=json/size=1MB/order=kept"}, value: 10e6},
			{what: "base and ours reordered", ours: figure{bench: "Merge/subject=tokenkeep/size=1MB/order=random-both"}, limit: figure{bench: "Merge/subject=json/size=1MB/order=kept"}, value: 10e6},
		},
	}, {
		title: "The lock",
		text:  "8 processes that each take the lock, work for 1 ms, let it go and come again at once.",
		limit: "one process alone",
		rows: []row{
			{what: "sections per second", ours: figure{"Lock/subject=tokenkeep/section=1ms", "sections/s"}, limit: figure{"Lock/subject=limit/section=1ms", "sections/s"}, atLeast: 0.9},
			{what: "longest wait, in medians", ours: figure{"Lock/subject=tokenkeep/section=1ms", "max/median"}, value: 5},
		},
	}, {
		title: "Open with a cache in place",
		text:  "The keyring is a stand-in that takes 2 ms for a read and serves one at a time.",
		limit: "one read of the keyring, by every process",
		rows: []row{
			{what: "one Open", ours: figure{bench: "Open/subject=tokenkeep/keyring=2ms"}, limit: figure{bench: "Open/subject=limit/keyring=2ms"}},
			{what: "reads of the keyring", ours: figure{"Open/subject=tokenkeep/keyring=2ms", "keyring-reads/op"}, value: 1},
			{what: "100 processes at once, until the last", ours: figure{"OpenAll/subject=tokenkeep/processes=100", "all-ns"}, limit: figure{"OpenAll/subject=limit/processes=100", "all-ns"}, atMost: 1.05},
		},
	}, {
		title: "A program's start to its token, with GNOME Keyring",
		text:  "Process against process, 10 KB. secret-tool lookup is the system's own client, which asks for one item.",
		limit: "the same program with a plaintext file", peers: []string{"secret-tool"},
		rows: []row{
			{what: "start, token, end", ours: figure{bench: "Start/subject=tokenkeep/keyring=gnome"}, limit: figure{bench: "Start/subject=limit/keyring=gnome"}, atMost: 1.35,
				peers: []figure{{bench: "Start/subject=secret-tool/keyring=gnome"}}},
		},
	}, {
		title: "A passphrase",
		text:  "10 loads and 10 saves of 10 KB in a process that has to derive the key.",
		limit: "one Argon2id",
		rows: []row{
			{what: "20 uses", ours: figure{bench: "Argon2/subject=tokenkeep/uses=20"}, limit: figure{bench: "Argon2/subject=limit/uses=20"}},
			{what: "derivations", ours: figure{"Argon2/subject=tokenkeep/uses=20", "derivations/op"}, value: 1},
		},
	}, {
		title: "The machine's limits",
		rows: []row{
			{what: "stat", ours: figure{bench: "Limit/subject=stat/size=10KB"}},
			{what: "os.Lstat", ours: figure{bench: "Limit/subject=os.Lstat/size=10KB"}},
			{what: "flock and unlock", ours: figure{bench: "Limit/subject=flock/processes=1"}},
			{what: "read 10 KB", ours: figure{bench: "Limit/subject=read/size=10KB"}},
			{what: "read 100 KB", ours: figure{bench: "Limit/subject=read/size=100KB"}},
			{what: "read 1 MB", ours: figure{bench: "Limit/subject=read/size=1MB"}},
			{what: "read 10 MB", ours: figure{bench: "Limit/subject=read/size=10MB"}},
			{what: "write, fsync, rename, fsync of the folder, 10 KB", ours: figure{bench: "Limit/subject=write/size=10KB"}},
			{what: "the same, 100 KB", ours: figure{bench: "Limit/subject=write/size=100KB"}},
			{what: "the same, 1 MB", ours: figure{bench: "Limit/subject=write/size=1MB"}},
			{what: "the same, 10 MB", ours: figure{bench: "Limit/subject=write/size=10MB"}},
			{what: "AES-256-GCM seal, 10 KB", ours: figure{bench: "Limit/subject=seal/size=10KB"}},
			{what: "AES-256-GCM seal, 1 MB", ours: figure{bench: "Limit/subject=seal/size=1MB"}},
			{what: "AES-256-GCM seal, 10 MB", ours: figure{bench: "Limit/subject=seal/size=10MB"}},
			{what: "AES-256-GCM open, 10 KB", ours: figure{bench: "Limit/subject=open/size=10KB"}},
			{what: "AES-256-GCM open, 1 MB", ours: figure{bench: "Limit/subject=open/size=1MB"}},
			{what: "AES-256-GCM open, 10 MB", ours: figure{bench: "Limit/subject=open/size=10MB"}},
		},
	},
}
