package merge

import (
	"time"

	"github.com/tokenkeep/tokenkeep/internal/tokencache"
)

type DocInput struct {
	Base, Ours, Theirs *tokencache.Doc
	Back               []tokencache.Account
	Now                time.Time
}

func MergeDocs(in DocInput) Result {
	i := Input{BaseUnknown: in.Base == nil, Ours: in.Ours.Data(), Theirs: in.Theirs.Data(), Now: in.Now}
	if in.Base != nil {
		i.Base = in.Base.Data()
	}
	r, err := Join(i)
	if err != nil {
		panic(err)
	}
	return r
}
