package encrypted

func runChild(string) int { return 1 }
