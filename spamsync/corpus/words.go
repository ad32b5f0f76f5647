package corpus

import "strings"

// words are what one class writes about.
type words struct {
	nouns, verbs, hosts []string
}

func vocabulary(spam bool) words {
	if spam {
		return words{
			nouns: strings.Fields(`casino jackpot prize lottery pills pharmacy discount offer bargain loan credit mortgage debt refinance investment crypto
				wallet bitcoin profit income millionaire inheritance beneficiary fortune luxury watches replica handbags dating singles escort enlargement weight
				miracle supplement detox guarantee refund bonus coupon voucher giveaway subscription upgrade membership invoice-overdue suspension verification
				account-locked password-expiry winner claim transfer bank-draft consignment diplomat attorney`),
			verbs: strings.Fields(`click claim win earn save buy order act hurry unlock confirm verify redeem activate double triple boost grab risk-free collect`),
			hosts: strings.Fields(`bestdeal luckywin megaoffer cashnow superpills quickloan topwatch dateme`),
		}
	}
	return words{
		nouns: strings.Fields(`meeting agenda minutes project deadline milestone review draft chapter thesis budget forecast colleague committee workshop seminar
			lecture schedule calendar lunch dinner birthday holiday garden school teacher homework compiler patch release branch repository regression server
			replication backup kernel driver protocol parser benchmark apartment plumber electrician neighbour recipe library museum concert rehearsal
			orchestra hiking railway timetable appointment dentist prescription renewal contract signature purchase-order delivery-note warehouse`),
		verbs: strings.Fields(`discuss attend review merge deploy schedule postpone forward attach summarise translate borrow return rehearse visit repair measure debug document cook`),
		hosts: strings.Fields(`university workshop engineering bakery orchestra library cityhall clinic`),
	}
}

func glue() []string {
	return strings.Fields(`the a of to and in is it you that he was for on are with as his they be at one have this from or had by but some what there we can out
		other were all your when up use word how said an each she which do their time if will way about many then them would like so these her see him two has`)
}

func neutral() []string {
	return strings.Fields(`today tomorrow please thanks regards hello dear information details attached question answer number list page office phone address
		week month year morning evening price payment customer service team people website email message news update report request order`)
}

func names() []string {
	return strings.Fields(`anna bruno carla david elena felix greta hanno ines jonas karla lars mona nils olga paul rosa sven tilda uwe vera walter`)
}
