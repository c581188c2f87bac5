package securefile_test

func becomeUser() {}
