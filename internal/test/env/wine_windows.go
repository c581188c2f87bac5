package env

import "golang.org/x/sys/windows"

// Wine tells whether the program runs under Wine, which is not Windows: what
// passes there need not pass here, nor the other way round.
func Wine() bool {
	return windows.NewLazySystemDLL("ntdll.dll").NewProc("wine_get_version").Find() == nil
}
