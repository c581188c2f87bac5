package interop

import (
	"fmt"
	"io/fs"
	"syscall"
)

func systemState(i fs.FileInfo) string {
	st := i.Sys().(*syscall.Stat_t)
	return fmt.Sprint(st.Ino, st.Uid, st.Mtimespec, st.Ctimespec)
}
