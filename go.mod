module example.com/hmacverify

go 1.24
