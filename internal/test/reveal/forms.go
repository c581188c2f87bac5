package reveal

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
)

// Forms returns how a secret may look in what [All] returns: as it is, and as a
// part of longer bytes in decimal, hexadecimal and base64. The secret should be
// long enough not to be found by chance.
func Forms(secret string) []string {
	b := []byte(secret)
	decimal := strings.Trim(fmt.Sprint(b), "[]")
	forms := []string{secret, decimal, strings.ReplaceAll(decimal, " ", ", "), hex.EncodeToString(b), strings.ToUpper(hex.EncodeToString(b)), fmt.Sprintf("% x", b), fmt.Sprintf("%# x", b),
		strings.Trim(strings.TrimPrefix(fmt.Sprintf("%#v", b), "[]byte"), "{}")}
	// In base64 of a longer text it may begin at any of three places.
	for shift := range 3 {
		if text := base64.StdEncoding.EncodeToString(append(make([]byte, shift), b...)); len(text) > 12 {
			forms = append(forms, text[4:len(text)-4])
		}
	}
	return forms
}

// Found returns the form in which one of the secrets is in the text, or "".
func Found(text string, secrets ...string) string {
	for _, secret := range secrets {
		for _, form := range Forms(secret) {
			if strings.Contains(text, form) {
				return form
			}
		}
	}
	return ""
}
