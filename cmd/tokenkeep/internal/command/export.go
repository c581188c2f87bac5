package command

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"slices"
	"strings"

	"github.com/tokenkeep/tokenkeep/internal/securefile"
	"github.com/tokenkeep/tokenkeep/internal/tokencache"
)

var exportCommand = &command{
	name: "export", args: "NAME", min: 1, max: 1, short: "print a cache as MSAL's JSON, without the secrets",
	long: "Prints what is stored as the JSON that all MSAL libraries read. Tokens and people's names are replaced by " + redacted +
		", and everything that this program does not know is left out, so that the output can go into a bug report. " +
		"With -secrets it prints everything, for example to move it to another machine: anybody who has that output can sign in as the user.",
	examples: []string{"tokenkeep export contoso-cli", "tokenkeep export contoso-cli -secrets -o contoso.json", "tokenkeep export contoso-cli -secrets | ssh host tokenkeep import contoso-cli -"},
	flags: func(set *flag.FlagSet, o *options) {
		dirFlag(set, o)
		set.BoolVar(&o.secrets, "secrets", false, "print everything, with the tokens")
		set.StringVar(&o.out, "o", "", "write to this `file`, closed to other users, instead of standard output")
		passphraseFlag(set, o)
	},
	run: runExport,
}

const redacted = "REDACTED"

type exported struct {
	Name     string          `json:"name"`
	Redacted bool            `json:"redacted"`
	File     string          `json:"file,omitempty"`
	Data     json.RawMessage `json:"data,omitempty"`
}

func runExport(ctx context.Context, c *call) (report, error) {
	f, err := c.storedCache(c.args[0])
	if err != nil {
		return nil, err
	}
	from, err := c.open(ctx, f)
	if err != nil {
		return nil, err
	}
	d, err := parseCache(from.data)
	if err != nil {
		return nil, err
	}
	sections := map[string]json.RawMessage{}
	if c.secrets {
		for _, s := range d.Sections() {
			sections[s.Name] = s.Value()
		}
	} else {
		sections = redact(d)
	}
	out, err := json.MarshalIndent(sections, "", "  ")
	if err != nil {
		return nil, err
	}
	x := &exported{Name: f.name, Redacted: !c.secrets, Data: out}
	if c.out != "" {
		write := securefile.Replace
		if c.secrets {
			write = securefile.ReplacePlain
		}
		if _, err := write(ctx, c.out, out, []byte("\n")); err != nil {
			return nil, err
		}
		x.File, x.Data = c.out, nil
	}
	return x, nil
}

func (x *exported) write(p *printer) {
	if x.File != "" {
		p.line("Exported %s to %s.", x.Name, x.File)
		return
	}
	p.line("%s", x.Data)
}

// plainFields are the fields whose values can be shown to anybody: no token, no
// name of a person. Ids stay: a bug report needs them.
var plainFields = []string{
	"home_account_id", "environment", "realm", "client_id", "family_id", "target", "credential_type", "token_type",
	"local_account_id", "authority_type", "cached_at", "expires_on", "extended_expires_on", "refresh_on", "last_modification_time", "requested_claims_hash",
}

// plainOAuth2Fields are those of package tokensource.
var plainOAuth2Fields = []string{
	"expires_in", "expires_on", "cached_at", "scope", "token_type", "bound_client_id", "bound_issuer", "bound_token_endpoint",
}

// redact returns the known sections. Only the values of plain fields are as they were.
func redact(d *tokencache.Doc) map[string]json.RawMessage {
	out := map[string]json.RawMessage{}
	for _, s := range d.Sections() {
		plain := plainFields
		switch {
		case s.Name == tokencache.OAuth2Token:
			plain = plainOAuth2Fields
		case !tokencache.Shared(s.Name):
			continue
		}
		shown := map[string]json.RawMessage{}
		for i, e := range entriesOf(d, s.Name) {
			var fields map[string]json.RawMessage
			json.Unmarshal(e.Value(), &fields) // what is not an object has no fields to show
			for field, value := range fields {
				// A plain value is a number or a string; anything else may hold what
				// nobody knows. An address may have a password or a query.
				if !slices.Contains(plain, field) || value[0] == '{' || value[0] == '[' || strings.HasPrefix(field, "bound_") && bytes.ContainsAny(value, "@?#") {
					fields[field] = json.RawMessage(`"` + redacted + `"`)
				}
			}
			text, err := json.Marshal(fields)
			if err != nil {
				continue
			}
			// The key is made of fields, which may be secret; a number is not.
			shown[fmt.Sprintf("%s-%d", s.Name, i+1)] = text
		}
		out[s.Name], _ = json.Marshal(shown)
	}
	return out
}

func isRedacted(data []byte) bool { return bytes.Contains(data, []byte(`"`+redacted+`"`)) }
