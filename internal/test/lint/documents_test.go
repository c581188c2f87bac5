package lint

import (
	"fmt"
	"path"
	"regexp"
	"strings"
	"unicode"
)

var (
	codeInDocument    = regexp.MustCompile("(?s)\n```.*?\n```|`[^`\n]*`")
	linkInDocument    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	headingInDocument = regexp.MustCompile(`(?m)^#+ (.*)$`)
)

// documentLinks finds links of Markdown files that name no file or folder of the
// repository, or no heading of that file. Links to the internet are not followed.
func documentLinks(sources []*source) (broken []string) {
	there := make(map[string]*source)
	for _, s := range sources {
		there[s.path] = s
		for dir := path.Dir(s.path); dir != "."; dir = path.Dir(dir) {
			there[dir] = nil
		}
	}
	for _, s := range sources {
		if !strings.HasSuffix(s.path, ".md") || strings.Contains(s.path, "testdata/") {
			continue
		}
		text := codeInDocument.ReplaceAllString(string(s.text), "")
		for _, link := range linkInDocument.FindAllStringSubmatch(text, -1) {
			if strings.Contains(link[1], "://") {
				continue
			}
			file, heading, hasHeading := strings.Cut(link[1], "#")
			to, ok := s, true
			if file != "" {
				to, ok = there[path.Join(path.Dir(s.path), file)]
			}
			if !ok || hasHeading && !to.hasHeading(heading) {
				broken = append(broken, fmt.Sprintf("%s: the link %s leads nowhere", s.path, link[1]))
			}
		}
	}
	return broken
}

// hasHeading reports whether a Markdown file has a heading that an anchor names.
func (s *source) hasHeading(anchor string) bool {
	if s == nil { // a folder
		return false
	}
	for _, h := range headingInDocument.FindAllStringSubmatch(string(s.text), -1) {
		slug := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
				return unicode.ToLower(r)
			}
			return -1
		}, h[1])
		if slug == anchor {
			return true
		}
	}
	return false
}
