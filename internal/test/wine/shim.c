/* bcryptprimitives.dll with the one function of it that Go's runtime calls, as
   its source of random numbers. Wine 8 has no such library, and without it every
   Go program stops at its start. */
#include <windows.h>
#include <ntsecapi.h> /* RtlGenRandom */

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE data, SIZE_T size)
{
	while (size != 0) {
		ULONG n = size > 1 << 28 ? 1 << 28 : (ULONG)size;
		if (!RtlGenRandom(data, n))
			return FALSE;
		data += n;
		size -= n;
	}
	return TRUE;
}

BOOL WINAPI DllMainCRTStartup(HINSTANCE library, DWORD reason, LPVOID reserved)
{
	return TRUE;
}
