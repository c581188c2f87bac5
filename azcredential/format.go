package azcredential

import (
	"fmt"
	"io"
	"log/slog"
	"strconv"
)

// String returns a description that holds no token and no account.
func (c *Credential) String() string {
	if c == nil {
		return "azcredential: no credential"
	}
	return "azcredential: a credential of the application " + strconv.Quote(c.clientID)
}

// Format writes String for every verb: what MSAL keeps in memory is not shown.
func (c *Credential) Format(s fmt.State, _ rune) { io.WriteString(s, c.String()) }

// LogValue returns String.
func (c *Credential) LogValue() slog.Value { return slog.StringValue(c.String()) }
