package interop

import (
	"fmt"
	"io/fs"
	"syscall"
)

func systemState(i fs.FileInfo) string {
	st := i.Sys().(*syscall.Stat_t)
	if i.IsDir() {
		return fmt.Sprint(st.Ino, st.Uid, st.Mtim, st.Ctim) // names is what reads it
	}
	return fmt.Sprint(st.Ino, st.Uid, st.Atim, st.Mtim, st.Ctim)
}
